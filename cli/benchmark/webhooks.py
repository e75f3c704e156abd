"""Webhooks to many receivers: from the first message accepted until the last delivery is in the record."""

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import anyio

from cli.benchmark.arrivals import Arrivals
from cli.benchmark.exchanges import Exchange, Expected, ListedRequests
from cli.benchmark.open_loop import run_open
from cli.benchmark.receiver import Receiver

AT_ONCE_PER_S: Final = 1_000_000.0
"""All messages are due at once, so that they are accepted as fast as the product can."""
ARRIVED_S: Final = 30.0
RECORDED_S: Final = 15.0
LOOK_AGAIN_S: Final = 0.1

Reading = Callable[[int, str], bytes]
"""Number of a request and the id of its message to the GET of that message."""


async def run_webhooks(
    address: tuple[str, int], exchange: Exchange, reading: Reading, *, receiver: Receiver, count: int
) -> dict[str, Any]:
    """Send `count` messages at once. A latency is from there to the arrival; `per_s` counts what arrived.

    The time it took is the product's own account of it, from the first `accepted_at` to the last `ended_at`.
    """
    arrivals, reads, accepted_at = Arrivals(count), dict[str, bytes](), list[datetime]()

    def accepted(number: int, due_s: float, _: float, body: bytes) -> None:
        view = json.loads(body)
        reads[view["id"]] = reading(number, view["id"])
        accepted_at.append(datetime.fromisoformat(view["accepted_at"]))
        arrivals.sent(view["id"], due_s)

    cpu_s = time.process_time()
    receiver.on_arrival = arrivals.arrived
    try:
        posts = await run_open(address, exchange, rate=AT_ONCE_PER_S, count=count, on_success=accepted)
        await arrivals.wait(ARRIVED_S, "webhook missing")
    finally:
        receiver.on_arrival = None
    ended_at = await _recorded(address, list(reads.values()))
    elapsed_s = (max(ended_at) - min(accepted_at)).total_seconds() if ended_at else 0.0
    result = arrivals.tally.result(elapsed_s, time.process_time() - cpu_s)
    failures = result["failures"] | posts["failures"]
    if len(ended_at) < len(reads):
        failures["delivery not recorded"] = len(reads) - len(ended_at)
    return {**result, "failures": failures, "failed": sum(failures.values()), "accepted_per_s": posts["per_s"]}


async def _recorded(address: tuple[str, int], reads: list[bytes]) -> list[datetime]:
    """When each message ended as delivered, of all that have within `RECORDED_S`."""
    ended_at: list[datetime] = []
    with anyio.move_on_after(RECORDED_S):
        while reads:
            unread = dict(enumerate(reads))

            def read(number: int, _: float, __: float, body: bytes, unread: dict[int, bytes] = unread) -> None:
                view = json.loads(body)
                if view["state"] == "delivered":
                    ended_at.append(datetime.fromisoformat(view["ended_at"]))
                    del unread[number]

            exchange = ListedRequests(reads, Expected(status=200))
            await run_open(address, exchange, rate=AT_ONCE_PER_S, count=len(reads), on_success=read)
            if reads := list(unread.values()):
                await anyio.sleep(LOOK_AGAIN_S)
    return ended_at
