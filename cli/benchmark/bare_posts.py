"""Webhooks without postroom: aiohttp and nothing else, to the same receivers. The floor of webhooks per second."""

import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any, Final

import aiohttp
import anyio

from cli.benchmark.message import VIEW
from cli.benchmark.tally import Tally

HEADERS: Final = {"content-type": "application/json", "webhook-id": "bare"}
OK: Final = 200


async def run_bare_posts(urls: Sequence[str], *, in_flight: int, duration_s: float) -> dict[str, Any]:
    """POST a body as long as a message's to each URL in its turn, unsigned, `in_flight` at once."""
    tally, targets = Tally(), cycle(urls)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS, trust_env=False) as session:
        began_s, cpu_s = time.perf_counter(), time.process_time()
        async with anyio.create_task_group() as tasks:
            for _ in range(in_flight):
                tasks.start_soon(_post_until, session, targets, began_s + duration_s, tally)
        return tally.result(time.perf_counter() - began_s, time.process_time() - cpu_s)


async def _post_until(session: aiohttp.ClientSession, targets: Iterator[str], stop_at_s: float, tally: Tally) -> None:
    while (since_s := time.perf_counter()) < stop_at_s:
        try:
            async with session.post(next(targets), data=VIEW) as response:
                await response.read()
        except (aiohttp.ClientError, OSError) as error:
            tally.fail(type(error).__name__)
            continue
        fault = None if response.status == OK else f"status {response.status}"
        tally.settle(time.perf_counter() - since_s, fault)
