"""`python -m cli.benchmark.workload`: generates load and holds the stopwatch, in a process of its own.

    {"job": "closed", "args": {…}}  one line of JSON in  ──▶  {"result": {…}} or {"error": "…"}  one line of JSON out

The first line it prints names its webhook receivers: `{"one": URL, "neighbour": URL, "many": [200 URLs]}`. It ends with
its standard input.
"""

import gc
import json
import sys
from functools import partial
from typing import Any

import anyio

from cli.benchmark.jobs import JOBS, Job, webhook, webhook_hung, webhooks, webhooks_bare, webhooks_sent
from cli.benchmark.receiver import Receivers, all_receiving


async def serve() -> None:
    async with all_receiving() as receivers:
        _say({"one": receivers.one.url, "neighbour": receivers.neighbour.url, "many": receivers.many.urls})
        async for line in anyio.wrap_file(sys.stdin):
            _say(await _carry_out(json.loads(line), receivers))


async def _carry_out(order: dict[str, Any], receivers: Receivers) -> dict[str, Any]:
    jobs: dict[str, Job] = {
        **JOBS,
        "webhook": partial(webhook, receiver=receivers.one),
        "webhook_hung": partial(webhook_hung, receiver=receivers.one, neighbour=receivers.neighbour),
        "webhooks": partial(webhooks, receiver=receivers.many),
        "webhooks_bare": partial(webhooks_bare, receiver=receivers.many),
        "webhooks_sent": partial(webhooks_sent, receiver=receivers.many),
    }
    # A collection in the middle of a measurement would count as the server's delay.
    gc.collect()
    gc.disable()
    try:
        return {"result": await jobs[order["job"]](**order["args"])}
    except Exception as error:  # noqa: BLE001 - it is raised again where the order came from
        return {"error": f"{order['job']}: {_root(error)!r}"}
    finally:
        gc.enable()


def _root(error: BaseException) -> BaseException:
    return _root(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    anyio.run(serve, backend_options={"use_uvloop": True})
