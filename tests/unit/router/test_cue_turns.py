"""What becomes of a cue when its time has come, and when one of its fires has ended."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.cues import Cue, CueStatus, Fire, Misfire, OnFailure, Schedule, Transport, fire_ulid
from router.cue_turns import MAX_AT_ONCE, MAX_FIRES, End, scheduled, settled, turn, with_fires

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def minutes(n: float) -> datetime:
    return NOON + timedelta(minutes=n)


def cue(**fields: Any) -> Cue:
    facts: dict[str, Any] = {
        "id": "cue_1",
        "owner": "max",
        "key_id": "k",
        "name": "report",
        "created_at": NOON,
        "updated_at": NOON,
        "transport": Transport.AGENT,
        "agent_id": "agent_receiver0000",
        "schedule": Schedule(cron="* * * * *"),
        "next_fire_at": NOON,
    }
    return Cue(**{**facts, **fields})


def fire(number: int, *, is_ended: bool = False) -> Fire:
    return Fire(ulid=f"u{number}", scheduled_for=NOON, decided_at=NOON, ended_at=NOON if is_ended else None)


@pytest.mark.parametrize(
    "changes",
    [{"status": CueStatus.PAUSED}, {"status": CueStatus.ENDED}, {"next_fire_at": None}, {"next_fire_at": minutes(1)}],
)
def test_nothing_is_due_before_its_time_or_while_it_is_paused(changes: dict[str, Any]) -> None:
    assert turn(cue(**changes), NOON) is None


def test_an_instant_fires_under_its_own_id_and_the_cue_moves_on() -> None:
    made = turn(cue(), minutes(0.5))

    assert made is not None
    assert [each.ulid for each in made.fires] == [fire_ulid("max", "cue_1", NOON)]
    assert (made.cue.next_fire_at, made.cue.last_fire_at, made.cue.n_fired) == (minutes(1), NOON, 1)
    assert (made.n_missed, made.cue.fires) == (0, made.fires)


def test_a_clock_set_back_finds_nothing_to_fire_twice() -> None:
    made = turn(cue(), minutes(5))

    assert made is not None
    for back in range(6):
        assert turn(made.cue, minutes(back)) is None
    resumed = scheduled(made.cue, minutes(-10))
    assert resumed.next_fire_at == minutes(6)


@pytest.mark.parametrize(
    ("policy", "fired"), [(Misfire.FIRE_LATEST, [10]), (Misfire.FIRE_ALL, [8, 9, 10]), (Misfire.SKIP, [10])]
)
def test_the_policy_chooses_among_what_is_not_older_than_the_grace(policy: Misfire, fired: list[int]) -> None:
    made = turn(cue(misfire=policy, misfire_grace_s=150), minutes(10.2))

    assert made is not None
    assert [each.scheduled_for for each in made.fires] == [minutes(each) for each in fired]
    assert made.n_missed == made.cue.n_missed == 11 - len(fired)
    assert made.cue.missed == tuple(minutes(each) for each in range(11) if each not in fired)


def test_what_is_older_than_the_grace_is_recorded_only() -> None:
    late = cue(schedule=Schedule(at=NOON), misfire_grace_s=60)
    made = turn(late, minutes(2))

    assert made is not None
    assert (made.fires, made.n_missed, made.cue.missed) == ((), 1, (NOON,))
    assert (made.cue.status, made.cue.next_fire_at) == (CueStatus.ENDED, None)


def test_after_a_long_night_no_more_fire_at_once_than_is_good() -> None:
    made = turn(cue(misfire=Misfire.FIRE_ALL, misfire_grace_s=86_400), minutes(600))

    assert made is not None
    assert (len(made.fires), made.n_missed) == (MAX_AT_ONCE, 601 - MAX_AT_ONCE)


def test_ended_fires_are_forgotten_before_open_ones() -> None:
    many = cue(fires=tuple(fire(number, is_ended=number % 2 == 0) for number in range(MAX_FIRES)))
    kept = with_fires(many, [fire(98), fire(99)])

    assert len(kept.fires) == MAX_FIRES
    assert {"u0", "u2"}.isdisjoint(each.ulid for each in kept.fires)
    assert kept.fires[-1].ulid == "u99"


def test_an_end_counts_once() -> None:
    well, badly = End(state="delivered", is_success=True, at=NOON), End(state="expired", is_success=False, at=NOON)
    one = cue(fires=(fire(1), fire(2)))
    failed = settled(one, "u1", badly)

    assert failed is not None
    assert (failed.n_failed, failed.consecutive_failures, failed.status) == (1, 1, CueStatus.ACTIVE)
    assert settled(failed, "u1", badly) is None
    assert settled(failed, "u9", badly) is None
    better = settled(failed, "u2", well)
    assert better is not None
    assert (better.n_succeeded, better.consecutive_failures) == (1, 0)


def test_a_cue_that_wants_it_pauses_at_a_failure() -> None:
    one = cue(fires=(fire(1),), on_failure=OnFailure(pause=True))
    after = settled(one, "u1", End(state="expired", is_success=False, at=NOON))

    assert after is not None
    assert (after.status, after.next_fire_at) == (CueStatus.PAUSED, None)


def test_on_demand_a_cue_stays_active_without_a_next_instant() -> None:
    assert scheduled(replace(cue(), schedule=Schedule()), NOON).status is CueStatus.ACTIVE
