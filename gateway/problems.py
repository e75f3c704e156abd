"""Errors become problem details (RFC 9457): the one place where an exception turns into an answer."""

import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from pydantic_core import ErrorDetails, to_json
from starlette.responses import Response

from contracts.errors import Malformed, NotFound, PostroomError, Rejected, TooMany, Unauthenticated, Unavailable
from gateway.schemas import as_refusal

MEDIA_TYPE: Final = "application/problem+json"
_ROUTING: Final[Mapping[int, tuple[str, str]]] = {
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "This path does not know this method."),
}


def unauthenticated() -> Unauthenticated:
    """The one 401: whatever was wrong with the key, this is all a caller learns."""
    return Unauthenticated("invalid_credentials", "A valid API key is required: Authorization: Bearer <key>.")


def agent_not_found() -> NotFound:
    """The one answer for an agent that is absent, deleted or somebody else's."""
    return NotFound("agent_not_found", "There is no such agent.")


def error_view(error: Rejected | Unavailable) -> dict[str, Any]:
    """What `error` holds in the answer to this exception."""
    return {"code": error.code, "message": error.message, "status": error.http_status, **_facts(error)}


def problem_of(error: Exception, request_id: str) -> Response:
    """The answer to any exception. What is not an error of ours is a bug and is answered without details."""
    if isinstance(error, Rejected | Unavailable):
        return _problem(error.http_status, error.code, error.message, _facts(error), _headers(error))
    message = "Something went wrong on our side."
    return _problem(500, "internal_error", message, {"request_id": request_id}, {})


def refusal_of(errors: Iterable[ErrorDetails]) -> Rejected:
    """The first of pydantic's errors as a refusal."""
    return as_refusal(next(iter(errors)))


def routing_problem(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """The answer when no route takes a request: 404 or 405, and whatever else the framework refuses."""
    code, message = _ROUTING.get(status, ("http_error", HTTPStatus(status).phrase))
    return _problem(status, code, message, {}, dict(headers or {}))


def too_large(limit_bytes: int) -> Malformed:
    return Malformed("payload_too_large", f"A body may have {limit_bytes} bytes.", status=413)


def _problem(status: int, code: str, message: str, facts: Mapping[str, Any], headers: dict[str, str]) -> Response:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "error": {"code": code, "message": message, "status": status, **facts},
    }
    return Response(to_json(body, fallback=str), status, headers, MEDIA_TYPE)


def _facts(error: PostroomError) -> Mapping[str, Any]:
    if isinstance(error, Unavailable):
        return {**error.facts, "retry_after_s": error.retry_after_s}
    return error.facts


def _headers(error: PostroomError) -> dict[str, str]:
    match error:
        case Unauthenticated():
            return {"WWW-Authenticate": "Bearer"}
        case Unavailable(retry_after_s=wait):
            return {"Retry-After": str(max(1, round(wait)))}
        case TooMany(facts={"retry_after_s": wait}):
            return {"Retry-After": str(max(1, math.ceil(wait)))}
        case PostroomError(code="payload_too_large" | "request_timeout"):
            # What is left of the body is not read, so the connection cannot carry another request.
            return {"Connection": "close"}
    return {}
