"""How our routes differ from the framework's: the caller is known, let in by rule, and the body read strictly."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.types import Receive, Scope

from contracts.errors import Invalid
from contracts.records import Principal
from gateway.body import read_object
from gateway.parts import Rooms, rooms_of
from gateway.permissions import rule_of
from gateway.verify_echo import METHODS, wants_echo, with_echo


class Answer(Response):
    """JSON, written once and never validated again on its way out."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else to_json(content)


class StrictRoute(APIRoute):
    """A route for callers with a key. Forgetting to authenticate is not possible here, nor forgetting the rule."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        rule = rule_of(self.methods or (), self.path)
        has_body = self.body_field is not None
        is_optional = self.body_field is not None and not self.body_field.field_info.is_required()

        async def strict(request: Request) -> Response:
            scope = request.scope
            authenticator = rooms_of(request).authenticator
            principal = await authenticator.principal(scope["headers"], scope["query_string"])
            rule.admit(principal)
            request.state.principal = principal
            if not has_body:
                return _echoing(request, await handle(request), None)
            if is_optional and announces_nothing(scope):
                return _echoing(request, await handle(request), {})
            value = await read_object(scope, request.receive)
            return _echoing(request, await handle(_CheckedRequest(scope, request.receive, value)), value)

        return strict


def _echoing(request: Request, response: Response, received: Any) -> Response:
    """The answer, with what was received where the caller asked for it."""
    if request.method not in METHODS or not isinstance(response, Answer) or response.status_code >= 300:
        return response
    if wants_echo(request.scope["headers"]):
        told = with_echo(bytes(response.body), received)
        if told is not response.body:
            response.body = told
            response.headers["content-length"] = str(len(told))
    return response


def announces_nothing(scope: Scope) -> bool:
    """Whether a request says by its headers that no body follows."""
    headers = dict(scope["headers"])
    return b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0"


class _CheckedRequest(Request):
    """A request whose body has been read and checked already; what is left to receive is that the client hung up."""

    def __init__(self, scope: Scope, receive: Receive, value: dict[str, Any]) -> None:
        super().__init__(scope, receive)
        self._value = value

    async def body(self) -> bytes:
        return b"{}"  # anything but empty: what counts is the value below

    async def json(self) -> Any:
        return self._value


def caller(request: Request) -> Principal:
    principal = request.state.principal
    assert isinstance(principal, Principal)
    return principal


Caller = Annotated[Principal, Depends(caller)]
House = Annotated[Rooms, Depends(rooms_of)]


def words(text: str | None, allowed: dict[str, Any], field: str) -> tuple[Any, ...]:
    """A comma list of a query as values; empty when it is absent. Raises `Invalid` for a word that is not allowed."""
    if text is None:
        return ()
    if any(word not in allowed for word in text.split(",")):
        raise Invalid("invalid_enum", f"Each word is one of: {', '.join(allowed)}.", field=field)
    return tuple(dict.fromkeys(allowed[word] for word in text.split(",")))
