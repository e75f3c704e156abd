"""Live sends while thousands of dead letters are redriven beside them, and the same sends without: once in a run.

The dead letters are made through the product: live offers, without a fallback, to an agent that has no session yet.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from cli.api import Api
from cli.benchmark.children import Workload
from cli.benchmark.house import LONGEST_HEARTBEAT_AGE_S, House, settle, settle_events
from cli.benchmark.percentiles import median
from cli.failures import Failure

REDRIVE: Final = "redrive"
WITHOUT, WITH = f"{REDRIVE}_without", f"{REDRIVE}_with"
LIVE_PER_S: Final = 200
IN_FLIGHT: Final = 64
PORTION: Final = 10_000
PORTION_WITHIN_S: Final = 100.0
RATE_PER_S: Final = 50
"""The usual rate of a redrive."""
LONGEST_WINDOW_S: Final = 20.0
"""The live sends beside a redrive are measured in windows of so long at most, from its start to its end."""
BASE_WINDOWS: Final = 2
"""Before the redrive, and as many behind it: the machine may have other work at either time."""
LATE_S: Final = 60.0
LABEL: Final = "late"

Tell = Callable[[str], None]
Requests = Callable[[str, str], Any]
"""Mode and agent to the POST of the benchmark's message."""


async def measure_redrive(house: House, count: int, request: Requests, load: Workload, tell: Tell) -> dict[str, Any]:
    """Two results: the live sends without a redrive, and with one of `count` messages from its start to its end."""
    api = Api(house.url, house.key)
    try:
        agent = await _dead_letters(api, count, request, load)
        settle(house)
        settle_events(house)
        window_s = min(max(1.0, count / RATE_PER_S), LONGEST_WINDOW_S)
        live = {"request": request("inbox", house.inbox), "rate": LIVE_PER_S, "count": round(LIVE_PER_S * window_s)}
        before = [await load.carry_out("offered", **live) for _ in range(BASE_WINDOWS)]
        beside = await _beside(api, agent, count, load, live)
        settle(house)
        after = [await load.carry_out("offered", **live) for _ in range(BASE_WINDOWS)]
        base = _together([*before, *after])
        tell(_line(WITHOUT, base))
        tell(f"{_line(WITH, beside)}, {beside['redriven']} redriven in {beside['redrive_s']:.0f} s")
        return {WITHOUT: base, WITH: beside}
    finally:
        api.close()


async def _dead_letters(api: Api, count: int, request: Requests, load: Workload) -> str:
    """An agent with so many dead letters. Raises `Failure` when it has another number of them."""
    body = {"slug": "bench-dead", "delivery_capabilities": ["live"], "heartbeat_age_sec": LONGEST_HEARTBEAT_AGE_S}
    agent = str(api.post("/v1/agents", body)["id"])
    post = request("live", agent)
    post = post | {"expected": post["expected"] | {"values": {"state": "live_unclaimed_no_session"}}}
    for done in range(0, count, PORTION):
        portion = min(PORTION, count - done)
        result = await load.carry_out(
            "closed", request=post, in_flight=IN_FLIGHT, duration_s=PORTION_WITHIN_S, count=portion
        )
        if result["n"] != portion:
            raise Failure(f"of {portion} dead letters {result['n']} were made: {result['failures']}")
    return agent


async def _beside(api: Api, agent: str, count: int, load: Workload, live: dict[str, Any]) -> dict[str, Any]:
    api.post(f"/v1/agents/{agent}/live-sessions", {"label": LABEL})
    began_s = time.perf_counter()
    redrive = api.post("/v1/dead-letters/redrive", {"filter": {"agent": agent}, "rate_per_s": RATE_PER_S})
    if redrive["matched"] != count:
        raise Failure(f"{redrive['matched']} dead letters match, {count} were made")
    windows, ended = list[dict[str, Any]](), redrive
    while ended["state"] != "done":
        if time.perf_counter() - began_s > count / RATE_PER_S + LATE_S:
            raise Failure(f"the redrive is at {ended['done']} of {count} after its time")
        windows.append(await load.carry_out("offered", **live))
        ended = api.get(f"/v1/redrives/{redrive['id']}")
    took_s = _seconds(ended)
    result = _together(windows)
    failures = dict(result["failures"])
    if ended["redriven"] != count:
        failures["not redriven"] = count - ended["redriven"]
    return {
        **result,
        "failures": failures,
        "failed": sum(failures.values()),
        "redriven": ended["redriven"],
        "redrive_s": took_s,
        "redriven_per_s": ended["redriven"] / took_s,
    }


def _together(windows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Windows as one result: counts added up, latencies as their medians, and the worst p99 by itself."""
    failures: Counter[str] = Counter()
    for each in windows:
        failures.update(each["failures"])
    timed = [each for each in windows if each["n"]]
    latencies = {name: median([each[name] for each in timed]) for name in ("p50_ms", "p99_ms", "per_s")}
    worst = max((each["p99_ms"] for each in timed), default=None)
    n = sum(each["n"] for each in windows)
    return {
        **latencies,
        "n": n,
        "failures": dict(failures),
        "failed": failures.total(),
        "worst_p99_ms": worst,
        "windows": len(windows),
    }


def _seconds(view: dict[str, Any]) -> float:
    """How long a redrive took, by the product's clock: it may end in the middle of a window."""
    began, ended = (datetime.fromisoformat(view[name]) for name in ("created_at", "ended_at"))
    return (ended - began).total_seconds()


def _line(name: str, result: dict[str, Any]) -> str:
    latency = "p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms".format_map(result) if result["n"] else "nothing succeeded"
    failed = f", FAILED {result['failed']} {result['failures']}" if result["failed"] else ""
    return f"{name:32} {result['per_s']:10,.0f}/s  {latency}{failed}"
