"""The demo's webhook receiver: one small HTTP server on loopback that keeps what was POSTed to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

HEADER_MAX_BYTES: Final = 16 * 1024
BODY_MAX_BYTES: Final = 256 * 1024
NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One POST as it came in; header names are lower case."""

    headers: dict[str, str]
    body: bytes


class Receiver:
    """Where it listens, and what it got."""

    def __init__(self, port: int, arrivals: MemoryObjectReceiveStream[Received]) -> None:
        self.url = f"http://127.0.0.1:{port}/hook"
        self._arrivals = arrivals

    async def next(self, timeout_s: float) -> Received:
        """The next POST. Raises `TimeoutError`."""
        with anyio.fail_after(timeout_s):
            return await self._arrivals.receive()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Listen on a free port while the block runs."""
    send, receive = anyio.create_memory_object_stream[Received](16)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    async with listener, send, receive, anyio.create_task_group() as tasks:

        async def answer(stream: SocketStream) -> None:
            async with stream:
                await _answer(stream, send)

        tasks.start_soon(listener.serve, answer)
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - not Django's
        yield Receiver(int(port), receive)
        tasks.cancel_scope.cancel()


async def _answer(stream: SocketStream, arrivals: MemoryObjectSendStream[Received]) -> None:
    reader = BufferedByteReceiveStream(stream)
    try:
        head = await reader.receive_until(b"\r\n\r\n", HEADER_MAX_BYTES)
        headers = _headers(head)
        length = min(int(headers.get("content-length", "0")), BODY_MAX_BYTES)
        body = await reader.receive_exactly(length) if length else b""
        await stream.send(NO_CONTENT)
    except (anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError, ValueError):
        # Not a request, or not a whole one: nobody has to be told.
        return
    await arrivals.send(Received(headers=headers, body=body))


def _headers(head: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
