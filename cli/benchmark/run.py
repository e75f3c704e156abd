"""One run from start to end: bring everything up, warm it, measure round by round, take everything down."""

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cli.benchmark.children import Product, Workload, bare_server, own_product, read_ready_file, workload
from cli.benchmark.facts import Beside, command_line, cpu_us_each, machine
from cli.benchmark.fleet import furnish_fleet
from cli.benchmark.heartbeats import HEARTBEATS, measure_heartbeats
from cli.benchmark.house import fill_inbox, furnish, settle
from cli.benchmark.plan import (
    POLL_STORED,
    WEBHOOKS,
    Measure,
    Scene,
    filling,
    posting,
    round_of,
    round_over_stored,
    round_to_webhooks,
    warm_up,
)
from cli.benchmark.redrives import REDRIVE, measure_redrive
from cli.benchmark.report import Run
from cli.benchmark.stored import FEW, store
from contracts.subjects import Names

Tell = Callable[[str], None]
ENVIRONMENT: Final = {"POSTROOM_WEBHOOK_ALLOW_LOOPBACK": "true"}
"""The receiver of webhooks is on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How long to measure, at which rates, and what. `only` keeps the measurements whose names begin so."""

    duration_s: float
    rounds: int
    offered_per_s: int = 1000
    lag_per_s: int = 1000
    stored: int = 100_000
    redriven: int = 10_000
    prefix: str = ""
    only: tuple[str, ...] = ()
    ready_file: Path | None = None
    product: Product | None = None

    def settings(self) -> dict[str, Any]:
        return {
            "duration_s": self.duration_s,
            "rounds": self.rounds,
            "offered_per_s": self.offered_per_s,
            "lag_per_s": self.lag_per_s,
            "many_stored": self.stored,
            "few_stored": FEW,
            "redriven": self.redriven,
            "only": list(self.only),
            "own_product": self.ready_file is None and self.product is None,
        }

    def wants(self, measure: Measure) -> bool:
        return not self.only or measure.name.startswith(self.only)

    @property
    def wants_stored(self) -> bool:
        """Whether any measurement on the filled inboxes is wanted: filling them takes a minute or two."""
        return self._wants_family(POLL_STORED)

    @property
    def wants_redrive(self) -> bool:
        """Whether the redrive is wanted: at its usual rate it takes minutes."""
        return self._wants_family(REDRIVE)

    @property
    def wants_heartbeats(self) -> bool:
        """Whether heartbeats over the broker are wanted: they are measured on servers of their own."""
        return self._wants_family(HEARTBEATS)

    @property
    def wants_webhooks(self) -> bool:
        """Whether webhooks to many hosts are wanted: each host needs an agent."""
        return self._wants_family(WEBHOOKS)

    def _wants_family(self, family: str) -> bool:
        return not self.only or any(name.startswith(family) or family.startswith(name) for name in self.only)


async def measure_all(options: Options, started_at: datetime, tell: Tell) -> Run:
    """Raises `Failure` when something could not be measured at all; failed requests are in the result."""
    facts = machine()
    async with _product(options) as product, bare_server() as bare_url, workload() as load:
        tell(f"measuring {product.url}")
        beside = Beside(product.pid)
        scene = await _scene(options, product, bare_url, load)
        try:
            rounds = await _rounds(product, scene, started_at, options, load, beside, tell)
        finally:
            await load.carry_out("drop_floor", url=product.nats_url)
    return Run(
        command=command_line(sys.argv[1:]),
        started_at=started_at,
        facts=facts,
        beside=beside.roles(),
        settings=options.settings(),
        rounds=rounds,
    )


@asynccontextmanager
async def _product(options: Options) -> AsyncIterator[Product]:
    if options.product is not None:
        yield options.product
    elif options.ready_file is not None:
        yield read_ready_file(options.ready_file)
    else:
        async with own_product(ENVIRONMENT) as product:
            yield product


async def _scene(options: Options, product: Product, bare_url: str, load: Workload) -> Scene:
    """Furnish the product and warm both sides: first requests pay for imports and empty caches."""
    house = furnish(product, load.receiver_url, load.neighbour_url)
    scene = Scene(
        house=house,
        bare_url=bare_url,
        nats_url=product.nats_url,
        record_bytes=0,
        duration_s=options.duration_s,
        offered_per_s=options.offered_per_s,
        lag_per_s=options.lag_per_s,
        run="warm",
    )
    warm = warm_up(scene)
    await load.carry_out(warm.job, **warm.args)
    fill_inbox(house)
    ledger = Names(prefix=options.prefix).ledger_stream
    floor = await load.carry_out("make_floor", url=product.nats_url, ledger=ledger)
    settle(house)
    return replace(scene, record_bytes=floor["record_bytes"])


async def _rounds(
    product: Product,
    scene: Scene,
    started_at: datetime,
    options: Options,
    load: Workload,
    beside: Beside,
    tell: Tell,
) -> list[dict[str, dict[str, Any]]]:
    """All rounds; those over the filled inboxes come last, so that no other measurement meets what fills them."""
    scenes = [replace(scene, run=f"{started_at:%H%M%S}r{number}") for number in range(1, options.rounds + 1)]
    rounds = [await _round(each, round_of(each), options, load, beside, tell) for each in scenes]
    if options.wants_webhooks:
        fleet = furnish_fleet(product, load.many_urls)
        for results, each in zip(rounds, scenes, strict=True):
            results |= await _round(each, round_to_webhooks(each, fleet), options, load, beside, tell)
    if options.wants_heartbeats:
        rounds[0] |= await measure_heartbeats(min(1.0, options.duration_s), tell)
    if options.wants_redrive:
        rounds[0] |= await measure_redrive(scene.house, options.redriven, posting(scene), load, tell)
    if options.wants_stored:
        stored = await store(scene.house, options.stored, lambda agent: filling(scene, agent), load, tell)
        for results, each in zip(rounds, scenes, strict=True):
            results |= await _round(each, round_over_stored(each, stored), options, load, beside, tell)
    return rounds


async def _round(
    scene: Scene, measures: Sequence[Measure], options: Options, load: Workload, beside: Beside, tell: Tell
) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    for measure in filter(options.wants, measures):
        result = await _measured(measure, scene, load, beside)
        results[measure.name] = result
        tell(_line(scene.run, measure, result))
    return results


async def _measured(measure: Measure, scene: Scene, load: Workload, beside: Beside) -> dict[str, Any]:
    """One result. The product settles before the next measurement begins, so that a floor has the machine to itself."""
    before = beside.cpu_s()
    result = await load.carry_out(measure.job, **measure.args)
    if measure.is_floor:
        return result
    settled_s = settle(scene.house)
    used = cpu_us_each(before, beside.cpu_s(), result["n"])
    return {**result, "settled_s": settled_s, "cpu_us_each": used}


def _line(run: str, measure: Measure, result: dict[str, Any]) -> str:
    latency = "p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms".format_map(result) if result["n"] else "nothing succeeded"
    failed = f", FAILED {result['failed']} {result['failures']}" if result["failed"] else ""
    return f"{run}  {measure.name:26} {result['per_s']:10,.0f}/s  {latency}{failed}"
