"""Webhook receivers that note when each message arrived and answer 200, at once or when they are told to."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast

from cli.benchmark.http_connection import HEAD_END, content_length

ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
WEBHOOK_ID: Final = b"webhook-id:"
LOOPBACK: Final = "127.0.0.1"
HOSTS: Final = 200


class Receiver:
    """Where arrivals are noted: message id to the instant its request was complete. `on_arrival` hears of each."""

    def __init__(self) -> None:
        self.on_arrival: Callable[[str, float], None] | None = None
        self.urls: list[str] = []
        self._holds = False
        self._held: set[_Connection] = set()

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def held(self) -> int:
        """How many requests wait for their answer."""
        return len(self._held)

    def hold(self) -> None:
        """Answer nothing until `release`."""
        self._holds = True

    def release(self) -> None:
        self._holds = False
        held, self._held = self._held, set()
        for each in held:
            each.answer()

    def received(self, message_id: str, connection: "_Connection") -> None:
        if self.on_arrival is not None:
            self.on_arrival(message_id, time.perf_counter())
        if self._holds:
            self._held.add(connection)
        else:
            connection.answer()

    def lost(self, connection: "_Connection") -> None:
        self._held.discard(connection)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receivers:
    """One of a process' own for each kind of measurement: alone, the neighbour that hangs, and on many hosts."""

    one: Receiver
    neighbour: Receiver
    many: Receiver


class _Connection(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.lost(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(HEAD_END)
        length = content_length(head + separator) if separator else None
        if length is None or len(body) < length:
            return
        self._buffer = body[length:]
        self._receiver.received(webhook_id(head), self)

    def answer(self) -> None:
        assert self._transport is not None
        self._transport.write(ANSWER)


def webhook_id(head: bytes) -> str:
    """The `webhook-id` of a request's head; empty when there is none."""
    for line in head.split(b"\r\n"):
        if line[: len(WEBHOOK_ID)].lower() == WEBHOOK_ID:
            return line[len(WEBHOOK_ID) :].strip().decode("latin-1")
    return ""


def many_hosts() -> list[str]:
    """Addresses of loopback, all different where the system has more than one; there a port makes the difference."""
    is_whole_net = sys.platform == "linux"
    return [f"127.0.0.{number}" if is_whole_net else LOOPBACK for number in range(2, 2 + HOSTS)]


@asynccontextmanager
async def receiving(hosts: Sequence[str] = (LOOPBACK,)) -> AsyncIterator[Receiver]:
    """A receiver on a free port of each of these addresses, for as long as the block runs."""
    receiver, servers = Receiver(), list[asyncio.Server]()
    try:
        for host in hosts:
            server = await asyncio.get_running_loop().create_server(lambda: _Connection(receiver), host, 0)
            servers.append(server)
            receiver.urls.append(f"http://{host}:{server.sockets[0].getsockname()[1]}/hook")
        yield receiver
    finally:
        for server in servers:
            server.close()


@asynccontextmanager
async def all_receiving() -> AsyncIterator[Receivers]:
    async with receiving() as one, receiving() as neighbour, receiving(many_hosts()) as many:
        yield Receivers(one=one, neighbour=neighbour, many=many)
