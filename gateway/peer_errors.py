"""Problems as CueAPI's clients read them: with `detail` as an object that holds the error once more.

Their command line reads `detail.error`, their SDK `error`. Clients of theirs are answered so wherever they name
themselves, with their words for the codes they compare; an installation can answer everybody so. See docs/adr/0009.
"""

from collections.abc import Mapping
from typing import Final

from pydantic_core import from_json, to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.problems import MEDIA_TYPE

_TYPE: Final = b"content-type"
_LENGTH: Final = b"content-length"
_NO_CODES: Final[Mapping[str, str]] = {}
THEIR_CODES: Final[Mapping[str, str]] = {
    "invalid_credentials": "invalid_api_key",
    "invalid_address": "invalid_agent_address",
    "idempotency_mismatch": "idempotency_key_conflict",
    "outcome_conflict": "outcome_already_recorded",
    "payload_too_large": "request_too_large",
}
"""Where one and the same refusal has another name over there. Every other code says more than theirs, and stays."""


class PeerErrors:
    """Wraps an app whose problems are sent whole, as ours are; the codes stay ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, respelling(send, _NO_CODES))


def respelling(send: Send, codes: Mapping[str, str]) -> Send:
    """`send` for an answer whose problem, if it is one, is to be respelled. Nothing else of the answer changes."""
    held: Message | None = None

    async def respelled(message: Message) -> None:
        nonlocal held
        if message["type"] == "http.response.start" and _is_problem(message):
            held = message
        elif held is not None:
            body = respell(message["body"], codes)
            await send({**held, "headers": _headers_for(held, body)})
            await send({**message, "body": body})
            held = None
        else:
            await send(message)

    return respelled


def respell(problem: bytes, codes: Mapping[str, str] = _NO_CODES) -> bytes:
    """The same problem with `{"error": …}` as its detail; it is no problem document any more, so its type changes."""
    value = from_json(problem)
    error = {**value["error"], "code": codes.get(value["error"]["code"], value["error"]["code"])}
    return to_json({**value, "error": error, "detail": {"error": error}})


def _is_problem(start: Message) -> bool:
    return (_TYPE, MEDIA_TYPE.encode()) in [(name.lower(), value) for name, value in start["headers"]]


def _headers_for(start: Message, body: bytes) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in start["headers"] if name.lower() not in (_TYPE, _LENGTH)]
    return [*kept, (_TYPE, b"application/json"), (_LENGTH, str(len(body)).encode())]
