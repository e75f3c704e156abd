"""A request's body: read within a time and a size, and checked before any schema sees it."""

import asyncio
from typing import Any, Final

from starlette.types import Receive, Scope

from contracts.errors import Malformed
from gateway.strict_json import parse_object

READ_TIMEOUT_S: Final = 30
JSON: Final = b"application/json"


async def read_object(scope: Scope, receive: Receive) -> dict[str, Any]:
    """The JSON object in the body. Raises `Malformed` or `Invalid`; the size was the middleware's to bound."""
    refuse_other_media(scope)
    return parse_object(await read(receive))


async def read(receive: Receive, *, timeout_s: float = READ_TIMEOUT_S) -> bytes:
    """All bytes of the body. Raises `Malformed` (`request_timeout`) when they take longer than `timeout_s` seconds.

    A bare timer, because almost every body is there at once and a cancel scope costs more than all the rest of this.
    """
    task, expired = asyncio.current_task(), False
    assert task is not None

    def expire() -> None:
        nonlocal expired
        expired = task.cancel()

    timer = asyncio.get_running_loop().call_later(timeout_s, expire)
    try:
        return await _all_of(receive)
    except asyncio.CancelledError:
        # Somebody else's cancellation, at the same moment, has to go on.
        if expired and task.uncancel() == 0:
            raise Malformed("request_timeout", "The body did not arrive in time.", status=408) from None
        raise
    finally:
        timer.cancel()


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
