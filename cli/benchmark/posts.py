"""Closed-loop POSTs with an HTTP client: so many in flight, to each of many URLs in its turn."""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

import anyio

from cli.benchmark.tally import Tally

Post = Callable[[str], Awaitable[str | None]]
"""URL to the fault of one POST there, or to None when it was answered as it should be."""


async def run_posts(post: Post, urls: Sequence[str], *, in_flight: int, duration_s: float) -> dict[str, Any]:
    """Keep `in_flight` POSTs under way for `duration_s` seconds; what is under way at the end counts, with its time."""
    tally, targets = Tally(), cycle(urls)
    began_s, cpu_s = time.perf_counter(), time.process_time()
    async with anyio.create_task_group() as tasks:
        for _ in range(in_flight):
            tasks.start_soon(_post_until, post, targets, began_s + duration_s, tally)
    return tally.result(time.perf_counter() - began_s, time.process_time() - cpu_s)


async def _post_until(post: Post, targets: Iterator[str], stop_at_s: float, tally: Tally) -> None:
    while (since_s := time.perf_counter()) < stop_at_s:
        fault = await post(next(targets))
        tally.settle(time.perf_counter() - since_s, fault)
