"""Bursts: so many sends at once, under one Idempotency-Key or each under its own, timed until the last is answered."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import anyio

from cli.benchmark.connections import connected
from cli.benchmark.exchanges import Exchange
from cli.benchmark.http_connection import HttpConnection
from cli.benchmark.tally import Tally

CREATED: Final = 201
REPLAYED: Final = 200
GRACE_S: Final = 10.0
"""How long the answers to one burst may take before what is missing counts as failed."""

Answer = tuple[int, bytes]
"""Status and body."""


class Bursts:
    """One burst after the other over the same connections, until `stop_at_s`. Use it by `run_bursts`.

    Request n of an exchange carries key n: all requests of a burst are the same one, or each is another.
    """

    def __init__(self, exchange: Exchange, *, one_key: bool) -> None:
        self._exchange = exchange
        self._one_key = one_key
        self._number = 0
        self._answers: list[Answer] = []
        self._since_s = 0.0
        self.connections: Sequence[HttpConnection] = ()
        self.stop_at_s = 0.0
        self.over = anyio.Event()
        self.tally = Tally()

    def send(self) -> None:
        self._answers = []
        requests = [self._exchange.render(number) for number in self._numbers()]
        self._since_s = time.perf_counter()
        for connection, request in zip(self.connections, requests, strict=True):
            connection.send(request)

    def on_answer(self, connection: HttpConnection, status: int, body: bytes) -> None:
        self._answers.append((status, body))
        if len(self._answers) < len(self.connections):
            return
        now = time.perf_counter()
        self.tally.settle(now - self._since_s, burst_fault(self._answers, one_key=self._one_key))
        if now < self.stop_at_s:
            self.send()
        else:
            self.over.set()

    def on_lost(self, connection: HttpConnection, fault: str) -> None:
        self.tally.fail(fault)
        self.over.set()

    def _numbers(self) -> Sequence[int]:
        n, first = len(self.connections), self._number
        self._number += 1 if self._one_key else n
        return [first] * n if self._one_key else range(first, first + n)


def burst_fault(answers: Sequence[Answer], *, one_key: bool) -> str | None:
    """What is wrong with the answers to one burst, None when nothing is.

    Under one key exactly one send creates the message and all others are told of that very message, as replayed.
    """
    statuses = Counter(status for status, _ in answers)
    created = 1 if one_key else len(answers)
    for status in statuses:
        if status not in (CREATED, REPLAYED):
            return f"status {status}"
    if statuses[CREATED] != created:
        return f"{statuses[CREATED]} of {len(answers)} created"
    try:
        views = [json.loads(body) for _, body in answers]
        ids = {view["id"] for view in views}
    except (ValueError, KeyError, TypeError):
        return "body is no view"
    if len(ids) != created:
        return "ids of one key differ" if one_key else "ids of different keys are the same"
    is_told = all(
        (status == REPLAYED) == view.get("replayed", False) for (status, _), view in zip(answers, views, strict=True)
    )
    return None if is_told else "replayed not told"


async def run_bursts(
    address: tuple[str, int], exchange: Exchange, *, size: int, one_key: bool, duration_s: float
) -> dict[str, Any]:
    """Send bursts of `size` for `duration_s` seconds; a latency is that of a whole burst, and `per_s` counts bursts."""
    bursts = Bursts(exchange, one_key=one_key)
    async with connected(address, bursts, size) as connections:
        bursts.connections = connections
        started_s, cpu_s = time.perf_counter(), time.process_time()
        bursts.stop_at_s = started_s + duration_s
        bursts.send()
        with anyio.move_on_after(duration_s + GRACE_S) as patience:
            await bursts.over.wait()
        if patience.cancelled_caught:
            bursts.tally.fail("no answer in time")
        result = bursts.tally.result(time.perf_counter() - started_s, time.process_time() - cpu_s)
        return {**result, "burst_size": size}
