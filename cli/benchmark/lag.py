"""How long after its 201 a message shows in the list: an observer looks for one message after the other.

A message whose 201 arrives while the observer is free is looked for, again and again, until a page shows it. The least
that can come out is the time of one read of the list.
"""

import json
import time
from collections.abc import Sequence
from typing import Any, Final

import anyio

from cli.benchmark.connections import connected
from cli.benchmark.exchanges import Exchange
from cli.benchmark.http_connection import HttpConnection
from cli.benchmark.open_loop import run_open
from cli.benchmark.tally import Tally

VISIBLE_WITHIN_S: Final = 20.0


class Observer:
    """Reads the newest page over a connection of its own until the message it looks for is there."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._wanted: tuple[str, float] | None = None
        self.connection: HttpConnection | None = None
        self.tally = Tally()
        self.reads = 0
        self.idle = anyio.Event()
        self.idle.set()

    def accepted(self, message_id: str, at_s: float) -> None:
        """Look for this message, unless another one is looked for."""
        if self._wanted is None and self.connection is not None and self.connection.is_open:
            self._wanted = message_id, at_s
            self.idle = anyio.Event()
            self.connection.send(self._request)

    def on_answer(self, connection: HttpConnection, status: int, body: bytes) -> None:
        now = time.perf_counter()
        assert self._wanted is not None
        message_id, at_s = self._wanted
        self.reads += 1
        if status != 200:
            self._found(now - at_s, f"list status {status}")
        elif is_shown(message_id, [view["id"] for view in json.loads(body)["executions"]]):
            self._found(now - at_s, None)
        elif now - at_s > VISIBLE_WITHIN_S:
            self._found(now - at_s, "not visible")
        else:
            connection.send(self._request)

    def on_lost(self, connection: HttpConnection, fault: str) -> None:
        self._found(0.0, fault)

    def _found(self, lag_s: float, fault: str | None) -> None:
        self._wanted = None
        self.tally.settle(lag_s, fault)
        self.idle.set()


def is_shown(message_id: str, page: Sequence[str]) -> bool:
    """Whether the newest page shows the message, or has gone past it already.

    Ids sort by the millisecond they were made in, so a page is past a message that is older than half of it.
    """
    return message_id in page or (bool(page) and message_id < sorted(page)[len(page) // 2])


async def run_lag(
    address: tuple[str, int], exchange: Exchange, list_request: bytes, *, rate: float, count: int
) -> dict[str, Any]:
    """Accept `count` messages at `rate` a second; return the lag of the list behind their 201s."""
    observer = Observer(list_request)

    def answered(_: int, __: float, now: float, body: bytes) -> None:
        observer.accepted(json.loads(body)["id"], now)

    async with connected(address, observer, 1) as (connection,):
        observer.connection = connection
        posts = await run_open(address, exchange, rate=rate, count=count, on_success=answered)
        with anyio.move_on_after(2 * VISIBLE_WITHIN_S):
            await observer.idle.wait()
    observer.tally.failures.update(posts["failures"])
    return {
        **observer.tally.result(posts["elapsed_s"], 0.0),
        "list_reads": observer.reads,
        "offered_per_s": rate,
        "accepted_per_s": posts["per_s"],
        "accept_p99_ms": posts.get("p99_ms"),
    }
