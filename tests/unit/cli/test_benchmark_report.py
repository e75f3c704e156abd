"""The report: medians of rounds, ratios within a round, goals met or missed by how much, and failures shown."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cli.bench import show
from cli.benchmark.facts import command_line
from cli.benchmark.fleet import Hook
from cli.benchmark.goals import GOALS, Figure, Floor, Goal, judge
from cli.benchmark.heartbeats import HEARTBEATS, PER_MESSAGE
from cli.benchmark.house import House
from cli.benchmark.plan import Scene, names, round_of, round_over_stored, round_to_webhooks
from cli.benchmark.redrives import WITH, WITHOUT
from cli.benchmark.report import Run, as_json, cells, footer, number, processor_lines, verdict, wanted, write
from cli.benchmark.run import Options
from cli.benchmark.stored import Stored, StoredInbox
from cli.failures import Failure

RATE = Figure(measure="product", field="per_s")
FLOOR = Floor(name="the floor", figure=Figure(measure="floor", field="per_s"))


def goal(**more: Any) -> Goal:
    return Goal(metric="accepted/s", product=RATE, **more)


def round_with(product: float, floor: float | None = None, **more: Any) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {"product": {"per_s": product, **more}}
    return results if floor is None else results | {"floor": {"per_s": floor}}


def run_of(*rounds: dict[str, dict[str, Any]]) -> Run:
    facts = {"cores": 2, "python": "3.11", "fsync": {"p50_ms": 0.2, "p99_ms": 0.5}, "load_average": (0.1, 0.1, 0.1)}
    return Run(
        command="postroom bench",
        started_at=datetime(2000, 1, 1, tzinfo=UTC),
        facts=facts,
        beside={"gateway": 1, "router": 1},
        settings={"duration_s": 2.0, "only": []},
        rounds=rounds,
    )


def test_a_ratio_is_the_median_of_each_rounds_own() -> None:
    """The machine was half as fast in the second round: both sides saw it."""
    row = judge(goal(floor=FLOOR, at_least=0.5), [round_with(60, 100), round_with(30, 50), round_with(55, 100)])
    assert row.ratio == pytest.approx(0.6)
    assert row.product == 55
    assert row.is_met is True


def test_a_goal_on_the_ratio_is_missed_by_a_share_of_the_goal() -> None:
    row = judge(goal(floor=FLOOR, at_least=0.5), [round_with(25, 100)])
    assert row.is_met is False
    assert row.short_by == pytest.approx(0.5)
    assert verdict(row) == "no, by 50 %"


def test_a_limit_is_missed_by_what_exceeds_it() -> None:
    row = judge(goal(at_most=5), [round_with(6)])
    assert (row.is_met, verdict(row)) == (False, "no, by 20 %")


@pytest.mark.parametrize(("bound", "value"), [({"at_least": 5}, 5), ({"at_most": 5}, 5)])
def test_a_bound_reached_exactly_is_met(bound: dict[str, float], value: float) -> None:
    assert judge(goal(**bound), [round_with(value)]).is_met is True


def test_without_a_floor_the_figure_itself_is_judged() -> None:
    row = judge(goal(at_least=10_000), [round_with(12_000), round_with(9_000), round_with(11_000)])
    assert (row.product, row.ratio, row.is_met) == (11_000, None, True)


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    row = judge(goal(floor=FLOOR, at_least=0.5), [round_with(25)])
    assert (row.ratio, row.is_met, verdict(row)) == (None, None, "not measured")


def test_a_line_without_a_goal_has_no_verdict() -> None:
    assert verdict(judge(goal(), [round_with(25)])) == ""


def test_a_line_names_its_floor_and_its_goal() -> None:
    row = judge(goal(floor=FLOOR, at_most=3), [round_with(2000, 1000)])
    assert cells(row) == ("accepted/s", "2,000", "1,000  (the floor)", "2.00", "≤ 3 ×", "yes")
    assert wanted(goal(at_least=10_000)) == "≥ 10000"


def test_numbers_are_short() -> None:
    assert [number(value) for value in (None, 0.123, 12.3, 12345.6)] == ["-", "0.12", "12.30", "12,346"]


def test_failures_are_summed_over_rounds_by_measurement_and_kind() -> None:
    run = run_of(
        round_with(1, failures={"status 503": 2}), round_with(1, failures={"status 503": 1, "connection lost": 1})
    )
    assert run.failures == {"product": {"status 503": 3, "connection lost": 1}}


def test_a_run_with_a_failed_request_is_written_and_then_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="status 503"):
        show(run_of(round_with(1, failures={"status 503": 1})), tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text())["failures"] == {"product": {"status 503": 1}}


def test_a_missed_goal_is_no_failure(tmp_path: Path) -> None:
    show(run_of({"accept_auto_64": {"per_s": 1.0}, "batch_64": {"per_s": 10.0}}), tmp_path / "run.json")


def test_the_file_holds_every_round_and_every_row(tmp_path: Path) -> None:
    run = run_of({"accept_auto_64": {"per_s": 9.0}, "batch_64": {"per_s": 10.0}})
    path = tmp_path / "results" / "run.json"
    write(run, path)
    found = json.loads(path.read_text())
    assert found == json.loads(json.dumps(as_json(run)))
    assert found["rounds"][0]["accept_auto_64"]["per_s"] == 9.0
    assert found["rows"][0]["ratio"] == pytest.approx(0.9)
    assert found["command"] == "postroom bench"


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"gateway": 1, "router": 1}, "1 gateway, 1 router: with the router beside it"),
        ({}, "processes unknown: no router seen beside it"),
    ],
)
def test_the_footer_says_what_ran_beside(beside: dict[str, int], said: str) -> None:
    run = run_of(round_with(1))
    shown = Run(
        command=run.command,
        started_at=run.started_at,
        facts=run.facts,
        beside=beside,
        settings=run.settings,
        rounds=run.rounds,
    )
    assert said in footer(shown)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (["bench", "--quick"], "postroom bench --quick"),
        (["bench", "--api-key", "pr_x", "--url", "http://h"], "postroom bench --api-key [hidden] --url http://h"),
        (["bench", "--nats-url=nats://core:pw@h"], "postroom bench --nats-url=[hidden]"),
    ],
)
def test_the_command_is_kept_without_its_secrets(typed: list[str], kept: str) -> None:
    assert command_line(typed) == kept


def test_processor_time_is_shown_the_greatest_share_first() -> None:
    run = run_of({"accept": {"cpu_us_each": {"router": 10.0, "gateway": 100.4}}})
    assert processor_lines(run.rounds, ["accept", "absent"]) == [
        "processor µs per message, accept: gateway 100, router 10"
    ]


def test_every_goal_reads_measurements_a_round_takes() -> None:
    house = House(url="http://h", key="k", session_token="t", **dict.fromkeys(AGENTS, "agent_x"))
    scene = Scene(
        house=house,
        bare_url="http://b",
        nats_url="nats://n",
        record_bytes=1,
        duration_s=1,
        offered_per_s=1000,
        lag_per_s=1000,
        run="r",
    )
    inbox = StoredInbox(newest="/newest", deep=("/oldest", "/deeper"))
    measured = names(
        [
            *round_of(scene),
            *round_over_stored(scene, Stored(few=inbox, many=inbox)),
            *round_to_webhooks(scene, [Hook(agent="agent_y", key="k")]),
        ]
    )
    assert len(set(measured)) == len(measured)
    asked = {goal.product.measure for goal in GOALS} | {goal.floor.figure.measure for goal in GOALS if goal.floor}
    assert asked == {*measured, *(f"{HEARTBEATS}_{n}" for n in PER_MESSAGE), WITHOUT, WITH}


@pytest.mark.parametrize("measure", ["webhooks_sent", "webhooks"])
def test_webhooks_have_their_goal_for_the_sender_alone_and_through_the_ledger(measure: str) -> None:
    (row,) = (judge(each, [{measure: {"per_s": 4_000}}]) for each in GOALS if is_limit_of(each, measure))
    assert verdict(row) == "no, by 20 %"


def is_limit_of(each: Goal, measure: str) -> bool:
    return each.product.measure == measure and each.floor is None


AGENTS = ("inbox", "live", "webhook", "hung", "poll", "lag", "few", "many", "sentinel")


@pytest.mark.parametrize(
    ("only", "is_filled"),
    [
        ((), True),
        (("poll_stored",), True),
        (("poll",), True),
        (("poll_stored_many_deep_16",), True),
        (("poll_1",), False),
    ],
)
def test_the_long_inbox_is_filled_only_for_measurements_on_it(only: tuple[str, ...], is_filled: bool) -> None:
    assert Options(duration_s=1, rounds=1, only=only).wants_stored is is_filled


@pytest.mark.parametrize(
    ("only", "is_wanted"), [((), True), (("redrive",), True), (("redrive_with",), True), (("poll",), False)]
)
def test_the_redrive_is_done_only_when_its_measurements_are_wanted(only: tuple[str, ...], is_wanted: bool) -> None:
    assert Options(duration_s=1, rounds=1, only=only).wants_redrive is is_wanted


@pytest.mark.parametrize(
    ("only", "is_wanted"),
    [((), True), (("webhook",), True), (("webhooks_bare",), True), (("webhook_hung",), False), (("poll",), False)],
)
def test_agents_on_many_hosts_are_made_only_for_measurements_on_them(only: tuple[str, ...], is_wanted: bool) -> None:
    assert Options(duration_s=1, rounds=1, only=only).wants_webhooks is is_wanted


def test_the_footer_says_how_much_was_stored_when_polls_over_it_were_measured() -> None:
    run = run_of({"poll_stored_few_deep_1": {}})
    run.settings.update(few_stored=1_000, many_stored=100_000)
    said = "few stored: 1,000 messages in the polled inbox; many stored: 100,000"
    assert said in footer(run)
    assert said not in footer(run_of(round_with(1)))
