"""Open-loop load: requests leave at fixed instants, whether or not earlier ones are answered.

A latency counts from the instant a request was due, so the time it waits for a free connection behind a slow server is
part of it; counted from the sending, a stall would hide all requests it held back (coordinated omission).
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import anyio

from cli.benchmark.connections import connected
from cli.benchmark.exchanges import Exchange
from cli.benchmark.http_connection import HttpConnection
from cli.benchmark.metronome import Metronome, beating
from cli.benchmark.percentiles import summary
from cli.benchmark.tally import Tally

CONNECTIONS: Final = 64
GRACE_S: Final = 20.0

OnSuccess = Callable[[int, float, float, bytes], None]
"""Number of the request, the instants it was due and answered, and the body."""


class OpenLoop:
    """Sends request n when beat n comes, over a free connection or as soon as there is one. Use it by `run_open`."""

    def __init__(self, exchange: Exchange, count: int, on_success: OnSuccess | None) -> None:
        self._exchange = exchange
        self._on_success = on_success
        self._waiting: deque[tuple[int, float]] = deque()
        self.free: deque[HttpConnection] = deque()
        self.unsettled = count
        self.idle = anyio.Event()
        self.tally = Tally()
        self.late_s: list[float] = []

    def beat(self, metronome: Metronome, number: int) -> None:
        due_s = metronome.due_s(number)
        self.late_s.append(time.perf_counter() - due_s)
        if self.free:
            self._send(self.free.popleft(), number, due_s)
        else:
            self._waiting.append((number, due_s))

    def on_answer(self, connection: HttpConnection, status: int, body: bytes) -> None:
        now = time.perf_counter()
        number, due_s = connection.number, connection.since_s
        if self._waiting:
            self._send(connection, *self._waiting.popleft())
        else:
            self.free.append(connection)
        fault = self._exchange.fault(number, status, body)
        self.tally.settle(now - due_s, fault)
        if fault is None and self._on_success is not None:
            self._on_success(number, due_s, now, body)
        self._settled()

    def on_lost(self, connection: HttpConnection, fault: str) -> None:
        self.tally.fail(fault)
        self._settled()

    def _send(self, connection: HttpConnection, number: int, due_s: float) -> None:
        connection.number, connection.since_s = number, due_s
        connection.send(self._exchange.render(number))

    def _settled(self) -> None:
        self.unsettled -= 1
        if not self.unsettled:
            self.idle.set()


async def run_open(
    address: tuple[str, int],
    exchange: Exchange,
    *,
    rate: float,
    count: int,
    connections: int = CONNECTIONS,
    grace_s: float = GRACE_S,
    on_success: OnSuccess | None = None,
) -> dict[str, Any]:
    """Send `count` requests at `rate` a second; return the tally as JSON, with how late the sending itself was."""
    load = OpenLoop(exchange, count, on_success)
    async with connected(address, load, connections) as opened:
        load.free.extend(opened)
        cpu_s = time.process_time()
        async with beating(rate, count, load.beat) as metronome:
            with anyio.move_on_after(count / rate + grace_s):
                await load.idle.wait()
        load.tally.fail("no answer in time", load.unsettled)
        result = load.tally.result(time.perf_counter() - metronome.start_s, time.process_time() - cpu_s)
    late = summary(load.late_s)
    return {
        **result,
        "offered_per_s": rate,
        "sent_late_p50_ms": late.get("p50_ms"),
        "sent_late_p99_ms": late.get("p99_ms"),
    }
