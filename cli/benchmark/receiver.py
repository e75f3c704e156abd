"""A webhook receiver that notes when each message arrived and answers 200."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, cast

from cli.benchmark.http_connection import HEAD_END, content_length

ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
WEBHOOK_ID: Final = b"webhook-id:"


class Receiver:
    """Where arrivals are noted: message id to the instant its request was complete. `on_arrival` hears of each."""

    def __init__(self) -> None:
        self.on_arrival: Callable[[str, float], None] | None = None
        self.url = ""

    def received(self, message_id: str) -> None:
        if self.on_arrival is not None:
            self.on_arrival(message_id, time.perf_counter())


class _Connection(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(HEAD_END)
        length = content_length(head + separator) if separator else None
        if length is None or len(body) < length:
            return
        self._buffer = body[length:]
        self._receiver.received(webhook_id(head))
        assert self._transport is not None
        self._transport.write(ANSWER)


def webhook_id(head: bytes) -> str:
    """The `webhook-id` of a request's head; empty when there is none."""
    for line in head.split(b"\r\n"):
        if line[: len(WEBHOOK_ID)].lower() == WEBHOOK_ID:
            return line[len(WEBHOOK_ID) :].strip().decode("latin-1")
    return ""


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port of loopback, for as long as the block runs."""
    receiver = Receiver()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(receiver), "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield receiver
    finally:
        server.close()
