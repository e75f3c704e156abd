"""Problems as CueAPI's command line reads them: with `detail` as an object that holds the error once more.

An installation that serves it wraps the app in this; see docs/adr/0009. Nothing else of an answer changes.
"""

from typing import Final

from pydantic_core import from_json, to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.problems import MEDIA_TYPE

_TYPE: Final = b"content-type"
_LENGTH: Final = b"content-length"


class PeerErrors:
    """Wraps an app whose problems are sent whole, as ours are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: Message | None = None

        async def respelled(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _is_problem(message):
                held = message
            elif held is not None:
                body = respell(message["body"])
                await send({**held, "headers": _headers_for(held, body)})
                await send({**message, "body": body})
                held = None
            else:
                await send(message)

        await self._app(scope, receive, respelled)


def respell(problem: bytes) -> bytes:
    """The same problem with `{"error": …}` as its detail; it is no problem document any more, so its type changes."""
    value = from_json(problem)
    return to_json({**value, "detail": {"error": value["error"]}})


def _is_problem(start: Message) -> bool:
    return (_TYPE, MEDIA_TYPE.encode()) in [(name.lower(), value) for name, value in start["headers"]]


def _headers_for(start: Message, body: bytes) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in start["headers"] if name.lower() not in (_TYPE, _LENGTH)]
    return [*kept, (_TYPE, b"application/json"), (_LENGTH, str(len(body)).encode())]
