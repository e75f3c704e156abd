"""A request's body: read within a time and a size, and checked before any schema sees it."""

from typing import Any, Final

import anyio
from starlette.types import Receive, Scope

from contracts.errors import Malformed
from gateway.strict_json import parse_object

READ_TIMEOUT_S: Final = 30
JSON: Final = b"application/json"


async def read_object(scope: Scope, receive: Receive) -> dict[str, Any]:
    """The JSON object in the body. Raises `Malformed` or `Invalid`; the size was the middleware's to bound."""
    refuse_other_media(scope)
    return parse_object(await read(receive))


async def read(receive: Receive) -> bytes:
    with anyio.move_on_after(READ_TIMEOUT_S):
        return await _all_of(receive)
    raise Malformed("request_timeout", "The body did not arrive in time.", status=408)


def refuse_other_media(scope: Scope) -> None:
    """Raise `Malformed` unless the body is announced as JSON."""
    for name, value in scope["headers"]:
        if name == b"content-type":
            if value == JSON or value.partition(b";")[0].strip().lower() == JSON:
                return
            break
    raise Malformed("unsupported_media_type", "The body has to be application/json.", status=415)


async def _all_of(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Malformed("incomplete_body", "The body ended early.")
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
