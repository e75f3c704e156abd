"""Closed-loop load: so many requests in flight, and each answer lets the next request go."""

import time
from typing import Any, Final

import anyio

from cli.benchmark.connections import connected
from cli.benchmark.exchanges import Exchange
from cli.benchmark.http_connection import HttpConnection
from cli.benchmark.tally import Tally

GRACE_S: Final = 10.0
"""How long an answer may take after the last request was sent before it counts as none."""


class ClosedLoop:
    """Sends until `stop_at_s`, or until `count` are sent, then waits for what is under way. Use it by `run`."""

    def __init__(self, exchange: Exchange, count: int | None = None) -> None:
        self._exchange = exchange
        self._count = count
        self.stop_at_s = 0.0
        self._number = 0
        self.under_way = 0
        self.idle = anyio.Event()
        self.tally = Tally()

    def send(self, connection: HttpConnection) -> None:
        connection.number = number = self._number
        self._number = number + 1
        self.under_way += 1
        request = self._exchange.render(number)
        connection.since_s = time.perf_counter()
        connection.send(request)

    def on_answer(self, connection: HttpConnection, status: int, body: bytes) -> None:
        now = time.perf_counter()
        self.under_way -= 1
        self.tally.settle(now - connection.since_s, self._exchange.fault(connection.number, status, body))
        if now < self.stop_at_s and self._number != self._count:
            self.send(connection)
        elif not self.under_way:
            self.idle.set()

    def on_lost(self, connection: HttpConnection, fault: str) -> None:
        self.under_way -= 1
        self.tally.fail(fault)
        if not self.under_way:
            self.idle.set()


async def run_closed(
    address: tuple[str, int],
    exchange: Exchange,
    *,
    in_flight: int,
    duration_s: float,
    count: int | None = None,
    grace_s: float = GRACE_S,
) -> dict[str, Any]:
    """Keep `in_flight` requests under way for `duration_s` seconds, or until `count` were sent; the tally as JSON."""
    loop = ClosedLoop(exchange, count)
    async with connected(address, loop, in_flight) as connections:
        started_s, cpu_s = time.perf_counter(), time.process_time()
        loop.stop_at_s = started_s + duration_s
        for connection in connections[:count]:
            loop.send(connection)
        with anyio.move_on_after(duration_s + grace_s):
            await loop.idle.wait()
        loop.tally.fail("no answer in time", loop.under_way)
        return loop.tally.result(time.perf_counter() - started_s, time.process_time() - cpu_s)
