"""The goals, each a ratio to a floor of the same run or a limit in milliseconds, and whether a run meets them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cli.benchmark.percentiles import median

BEAT_ROLES: Final = ("collector", "broker", "redis")
Rounds = Sequence[Mapping[str, Mapping[str, Any]]]
"""Of each round, the result of each measurement by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Which field of which measurement is meant: `per_s`, `p50_ms`, `p99_ms`."""

    measure: str
    field: str

    def of(self, results: Mapping[str, Mapping[str, Any]]) -> float | None:
        value = results.get(self.measure, {}).get(self.field)
        return None if value is None else float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """What the product is compared with."""

    name: str
    figure: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One line of the report. The bounds are on the ratio when there is a floor, else on the figure itself."""

    metric: str
    product: Figure
    floor: Floor | None = None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A goal and what was found: medians over the rounds. `is_met` is None without a goal, or with nothing to judge."""

    goal: Goal
    product: float | None
    floor: float | None
    ratio: float | None
    is_met: bool | None
    short_by: float | None
    """By which share of the goal it was missed: 0.25 is a quarter."""


def judge(goal: Goal, rounds: Rounds) -> Row:
    """The ratio is the median of each round's own ratio: both sides of a round saw the same machine."""
    product = _median_of(rounds, goal.product.of)
    floor = _median_of(rounds, goal.floor.figure.of) if goal.floor else None
    ratio = _median_of(rounds, lambda results: _ratio(goal, results)) if goal.floor else None
    judged = ratio if goal.floor else product
    short_by = _short_by(goal, judged)
    is_met = None if short_by is None else short_by <= 0
    return Row(
        goal=goal,
        product=product,
        floor=floor,
        ratio=ratio,
        is_met=is_met,
        short_by=short_by if short_by is not None and short_by > 0 else None,
    )


def _median_of(rounds: Rounds, figure: Callable[[Mapping[str, Mapping[str, Any]]], float | None]) -> float | None:
    return median([value for results in rounds if (value := figure(results)) is not None])


def _ratio(goal: Goal, results: Mapping[str, Mapping[str, Any]]) -> float | None:
    assert goal.floor is not None
    product, floor = goal.product.of(results), goal.floor.figure.of(results)
    return product / floor if product is not None and floor else None


def _short_by(goal: Goal, value: float | None) -> float | None:
    if value is None:
        return None
    if goal.at_least is not None:
        return 1 - value / goal.at_least
    return value / goal.at_most - 1 if goal.at_most is not None else None


def _rate(measure: str) -> Figure:
    return Figure(measure=measure, field="per_s")


def _p50(measure: str) -> Figure:
    return Figure(measure=measure, field="p50_ms")


def _p99(measure: str) -> Figure:
    return Figure(measure=measure, field="p99_ms")


def _accepts(mode: str) -> list[Goal]:
    lines = []
    for n in (1, 16, 64):
        rate, p50, p99 = (make(f"accept_{mode}_{n}") for make in (_rate, _p50, _p99))
        append, bare = f"append_{n}", f"bare_{n}"
        lines += [
            Goal(metric=f"{mode}: accepted/s, {n} in flight", product=rate, floor=_same("raw appends", _rate(append))),
            Goal(metric=f"{mode}: accepted/s, {n} in flight", product=rate, floor=_same("bare uvicorn", _rate(bare))),
            Goal(metric=f"{mode}: accept p50 ms, {n} in flight", product=p50, floor=_same("raw append", _p50(append))),
            Goal(metric=f"{mode}: accept p99 ms, {n} in flight", product=p99, floor=_same("raw append", _p99(append))),
        ]
    return lines


def _same(name: str, figure: Figure) -> Floor:
    return Floor(name=f"{name}, as many in flight", figure=figure)


def _full_load() -> list[Goal]:
    commit = Floor(name="group commit of 64", figure=_rate("batch_64"))
    return [
        Goal(metric="auto: accepted/s, 64 in flight", product=_rate("accept_auto_64"), floor=commit, at_least=0.5),
        Goal(metric="auto: accepted/s, 64 in flight", product=_rate("accept_auto_64"), at_least=10_000),
        Goal(metric="live: accepted/s, 64 in flight", product=_rate("accept_live_64"), floor=commit),
        Goal(
            metric="with Idempotency-Key: accepted/s, 64 in flight",
            product=_rate("accept_keyed_64"),
            floor=Floor(name="the same without", figure=_rate("accept_auto_64")),
            at_least=0.8,
        ),
    ]


def _latencies() -> list[Goal]:
    append = Floor(name="one raw append", figure=_p50("append_1"))
    pushed = Floor(name="raw append, then publish", figure=_p50("pushed_append"))
    return [
        Goal(metric="answer at the offered rate, p50 ms", product=_p50("answer"), floor=append, at_most=4),
        Goal(metric="answer at the offered rate, p99 ms", product=_p99("answer"), at_most=5),
        Goal(metric="POST → push, idle, p50 ms", product=_p50("push"), floor=pushed, at_most=3),
        Goal(metric="POST → push, idle, p50 ms", product=_p50("push"), at_most=1),
        Goal(metric="POST → push, idle, p99 ms", product=_p99("push")),
        Goal(metric="live claim at 500/s, p50 ms", product=_p50("claim"), at_most=5),
        Goal(metric="live claim at 500/s, p99 ms", product=_p99("claim")),
        Goal(metric="POST → webhook, idle, p50 ms", product=_p50("webhook"), at_most=5),
        Goal(metric="POST → webhook, idle, p99 ms", product=_p99("webhook")),
        *_webhooks(),
        Goal(metric="inbox poll of 50: polls/s, alone", product=_rate("poll_1")),
        Goal(metric="inbox poll of 50: p99 ms, alone", product=_p99("poll_1")),
        Goal(metric="inbox poll of 50: polls/s, 16 connections", product=_rate("poll_16")),
        Goal(metric="inbox poll of 50: p99 ms, 16 connections", product=_p99("poll_16"), at_most=5),
        Goal(metric="201 → in the list, p50 ms", product=_p50("lag")),
        Goal(metric="201 → in the list, p99 ms", product=_p99("lag"), at_most=50),
    ]


def _webhooks() -> list[Goal]:
    sent, through = "signed webhooks/s to 200 hosts, one sender", "signed webhooks/s to 200 hosts, through the ledger"
    bare = Floor(name="aiohttp alone, 64 at once", figure=_rate("webhooks_bare"))
    p50, p99 = (Floor(name="idle", figure=make("webhook")) for make in (_p50, _p99))
    return [
        Goal(metric="POST → webhook beside a hung one, p50 ms", product=_p50("webhook_hung"), floor=p50, at_most=2),
        Goal(metric="POST → webhook beside a hung one, p99 ms", product=_p99("webhook_hung"), floor=p99),
        Goal(metric=sent, product=_rate("webhooks_sent"), at_least=5_000),
        Goal(metric=sent, product=_rate("webhooks_sent"), floor=bare),
        Goal(metric=through, product=_rate("webhooks"), at_least=5_000),
        Goal(metric=through, product=_rate("webhooks"), floor=bare),
    ]


def _stored_polls() -> list[Goal]:
    return [line for where in ("newest", "deep") for n in (1, 16) for line in _stored_poll(where, n)]


def _stored_poll(where: str, n: int) -> list[Goal]:
    many, few = f"poll_stored_many_{where}_{n}", f"poll_stored_few_{where}_{n}"
    metric = f"poll, {where} page of many stored, {n} in flight"
    limit = [Goal(metric=f"{metric}: p99 ms", product=_p99(many), at_most=5)] if n == 16 else []
    return [
        *limit,
        Goal(metric=f"{metric}: p50 ms", product=_p50(many), floor=_few_stored(_p50(few))),
        Goal(metric=f"{metric}: p99 ms", product=_p99(many), floor=_few_stored(_p99(few))),
    ]


def _few_stored(figure: Figure) -> Floor:
    return Floor(name="few stored", figure=figure)


def _at_once() -> list[Goal]:
    return [
        Goal(
            metric=f"{n} sends at once under one key: all answered, p50 ms",
            product=_p50(f"same_key_{n}"),
            floor=Floor(name="each its own key", figure=_p50(f"own_key_{n}")),
        )
        for n in (8, 64)
    ]


def _fanouts() -> list[Goal]:
    p50, p99 = (Floor(name="one reader", figure=make("fanout_1")) for make in (_p50, _p99))
    events_per_s = Figure(measure="fanout", field="events_per_s")
    return [
        Goal(metric="POST → event at each of 100 readers, p50 ms", product=_p50("fanout"), floor=p50),
        Goal(metric="POST → event at each of 100 readers, p99 ms", product=_p99("fanout"), floor=p99),
        Goal(metric="events/s to each of 100 readers", product=events_per_s),
    ]


def _redrives() -> list[Goal]:
    p50, p99 = (Floor(name="without", figure=make("redrive_without")) for make in (_p50, _p99))
    return [
        Goal(metric="live accepts beside a redrive, p50 ms", product=_p50("redrive_with"), floor=p50, at_most=1.5),
        Goal(metric="live accepts beside a redrive, p99 ms", product=_p99("redrive_with"), floor=p99, at_most=2),
        Goal(metric="redriven/s meanwhile", product=Figure(measure="redrive_with", field="redriven_per_s")),
    ]


def _heartbeats() -> list[Goal]:
    lines = []
    for n in (1, 100):
        of = f"{n} session{'s' if n > 1 else ''} in a message"

        def figure(field: str, measure: str = f"heartbeats_{n}") -> Figure:
            return Figure(measure=measure, field=field)

        lines += [
            Goal(metric=f"session beats/s per core of collector, {of}", product=figure("per_core_s"), at_least=100_000),
            Goal(
                metric=f"cores of collector for 1 000 000 sessions at 60 s, {of}",
                product=figure("cores_for_a_million"),
                at_most=0.25,
            ),
            *(Goal(metric=f"{role} µs per session beat, {of}", product=figure(f"{role}_us")) for role in BEAT_ROLES),
            Goal(metric=f"bytes of state per session, {of}", product=figure("state_bytes")),
        ]
    return lines


GOALS: Final[tuple[Goal, ...]] = (
    *_full_load(),
    *_latencies(),
    *_stored_polls(),
    *_at_once(),
    *_fanouts(),
    *_heartbeats(),
    *_redrives(),
    *_accepts("auto"),
    *_accepts("live"),
)
