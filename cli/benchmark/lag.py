"""How long after its 201 a message shows in the list: an observer polls the count while others are accepted."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, Final

import anyio

from cli.benchmark.connections import connected
from cli.benchmark.exchanges import Exchange
from cli.benchmark.http_connection import HttpConnection
from cli.benchmark.open_loop import run_open
from cli.benchmark.percentiles import summary

POLL_S: Final = 0.002
VISIBLE_WITHIN_S: Final = 20.0

Seen = tuple[float, int]
"""The instant of an answer, and the count in it."""


class Observer:
    """Asks for the count again and again over one connection, `POLL_S` after each answer."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.seen: list[Seen] = []
        self.faults: list[str] = []
        self.answered = anyio.Event()

    def ask(self, connection: HttpConnection) -> None:
        connection.send(self._request)

    def on_answer(self, connection: HttpConnection, status: int, body: bytes) -> None:
        if status == 200:
            self.seen.append((time.perf_counter(), int(json.loads(body)["count"])))
        else:
            self.faults.append(f"status {status}")
        self.answered.set()
        asyncio.get_running_loop().call_later(POLL_S, self._ask_if_open, connection)

    def on_lost(self, connection: HttpConnection, fault: str) -> None:
        self.faults.append(fault)

    def _ask_if_open(self, connection: HttpConnection) -> None:
        if connection.is_open:
            self.ask(connection)


def lags(accepted_s: Sequence[float], seen: Sequence[Seen], base: int) -> list[float]:
    """For the k-th acceptance, the time until the count first reached `base + k`; those never reached are left out.

    Nothing is negative: a message may be in the list before its sender has read the 201.
    """
    found, at = [], 0
    for position, accepted in enumerate(sorted(accepted_s), base + 1):
        while at < len(seen) and seen[at][1] < position:
            at += 1
        if at == len(seen):
            break
        found.append(max(0.0, seen[at][0] - accepted))
    return found


async def run_lag(
    address: tuple[str, int], exchange: Exchange, count_request: bytes, *, rate: float, count: int
) -> dict[str, Any]:
    """Accept `count` messages at `rate` a second; return the lag of the list behind their 201s."""
    observer, accepted_s = Observer(count_request), list[float]()
    async with connected(address, observer, 1) as (connection,):
        observer.ask(connection)
        with anyio.fail_after(VISIBLE_WITHIN_S):
            await observer.answered.wait()
        base = observer.seen[-1][1]
        result = await run_open(
            address, exchange, rate=rate, count=count, on_success=lambda _, __, now, ___: accepted_s.append(now)
        )
        with anyio.move_on_after(VISIBLE_WITHIN_S):
            while observer.seen[-1][1] < base + len(accepted_s) and not observer.faults:
                await anyio.sleep(POLL_S)
    found = lags(accepted_s, observer.seen, base)
    unseen = len(accepted_s) - len(found)
    failures = {
        **result["failures"],
        **dict.fromkeys(observer.faults, 1),
        **({"not visible": unseen} if unseen else {}),
    }
    return {
        **result,
        **summary(found),
        "accept_p99_ms": result.get("p99_ms"),
        "polls": len(observer.seen),
        "failures": failures,
        "failed": sum(failures.values()),
    }
