"""Of every redrive: never faster than its rate, no message lost or counted twice, and every end is classified."""

from datetime import datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from contracts.redrives import DeadLetterFilter, Redrive, RedriveRun, RedriveState
from contracts.words import DEAD_LETTER_STATES, OPEN_STATES, SETTLED_STATES, State
from router.dead_letters import is_dead_letter, is_redrivable, takes
from router.execution import TABLE, fold
from router.explain import message_view
from router.redrive_pace import LONGEST_REST_S, SLOW_S, TokenBucket, rest_s
from router.redrive_runs import (
    MovedOn,
    Passage,
    Redriven,
    Refused,
    Tally,
    cancelling,
    counted,
    is_open,
    moved,
    named_portion,
    not_before,
    taken,
)
from tests.builders import NOW, WAYS, execution_in, history, outcome

IDS = tuple(f"msg_{number:026}" for number in range(200))
passages: st.SearchStrategy[Passage] = st.sampled_from(
    [Redriven(), MovedOn(), Refused("no_session_attached"), Refused("agent_inactive")]
)


def job(n: int, rate_per_s: float = 50) -> Redrive:
    return Redrive(
        id="redrive_1",
        owner="max",
        created_at=NOW,
        created_by="key:k",
        rate_per_s=rate_per_s,
        message_ids=IDS[:n],
        matched=n,
    )


@given(st.sampled_from(State))
def test_every_state_is_open_a_dead_letter_or_settled_and_the_rules_agree(state: State) -> None:
    assert [state in OPEN_STATES, state in DEAD_LETTER_STATES, state in SETTLED_STATES].count(True) == 1
    standing = execution_in(state)
    assert is_dead_letter(standing) == (state in DEAD_LETTER_STATES) == ("discarded" in TABLE[state])
    assert is_redrivable(standing) == (state in DEAD_LETTER_STATES)


@given(st.sampled_from(State))
def test_the_views_of_lists_are_taken_exactly_when_the_ledger_says_so(state: State) -> None:
    told = history(*WAYS[state])
    view = message_view(told, fold(told), trace=False)
    if state not in SETTLED_STATES:
        assert takes(DeadLetterFilter(), view) == is_redrivable(fold(told))
    assert not takes(DeadLetterFilter(), view, ended_before=NOW - timedelta(days=1))


def test_a_failed_delivery_is_redrivable_and_no_dead_letter() -> None:
    failed = execution_in(State.DELIVERED, outcome=outcome(success=False))
    assert is_redrivable(failed)
    assert not is_dead_letter(failed)


@given(st.floats(1, 500), st.lists(st.floats(0, 3), min_size=2, max_size=60))
def test_however_late_one_comes_no_two_tokens_are_closer_than_the_rate_says(
    per_s: float, delays_s: list[float]
) -> None:
    bucket, now, taken_at = TokenBucket(per_s=per_s), NOW, list[datetime]()
    for delay_s in delays_s:
        now += timedelta(seconds=delay_s)
        now += timedelta(seconds=bucket.wait_s(now))
        bucket = bucket.taken(now)
        taken_at.append(now)
    gaps = [(after - before).total_seconds() for before, after in pairwise(taken_at)]
    assert min(gaps) >= 1 / per_s - 2e-6
    assert (taken_at[-1] - taken_at[0]).total_seconds() >= (len(taken_at) - 1) / per_s - 1e-3


@given(st.floats(1, 500), st.floats(0, 100_000))
def test_a_clock_set_back_stops_nobody_for_longer_than_a_token(per_s: float, back_s: float) -> None:
    bucket = TokenBucket(per_s=per_s).taken(NOW)
    assert bucket.wait_s(NOW - timedelta(seconds=back_s)) <= 1 / per_s


@given(st.floats(0, 100))
def test_a_slow_broker_is_left_alone_and_a_quick_one_is_not(append_s: float) -> None:
    rest = rest_s(append_s)
    assert (rest > 0) == (append_s >= SLOW_S)
    assert rest <= LONGEST_REST_S


@given(st.integers(0, 200), st.floats(1, 500), st.data())
def test_whoever_works_at_it_each_named_message_is_in_hand_once_and_counted_once(
    n: int, rate_per_s: float, data: st.DataObject
) -> None:
    asked, run, seen = job(n, rate_per_s), RedriveRun(), list[str]()
    told: list[Passage] = []
    while is_open(run):
        name = data.draw(st.sampled_from(["router:a", "router:b"]))
        tally = Tally()
        for ulid in run.in_hand:
            seen.append(ulid)
            passage: Passage = data.draw(passages)
            told.append(passage)
            tally.count(passage)
        run = moved(counted(run, tally), named_portion(asked, run.position), name, NOW)
    assert seen == [each.removeprefix("msg_") for each in asked.message_ids]
    assert run.done == n
    assert run.redriven == sum(isinstance(each, Redriven) for each in told)
    assert sum(each.count for each in run.refused) == sum(isinstance(each, Refused) for each in told)
    assert (run.state, run.holder, run.in_hand) == (RedriveState.DONE, None, ())


@given(passages)
def test_a_cancelled_redrive_takes_nothing_more_and_keeps_what_it_did(passage: Passage) -> None:
    run = moved(RedriveRun(), named_portion(job(200), None), "router:a", NOW)
    tally = Tally()
    tally.count(passage)
    stopped = moved(counted(cancelling(run, NOW), tally), named_portion(job(200), run.position), "router:a", NOW)
    assert (stopped.state, stopped.done, stopped.in_hand) == (RedriveState.CANCELLED, 1, ())


@given(st.integers(-60, 60))
def test_another_router_takes_over_when_the_hold_is_over_and_not_before(later_s: int) -> None:
    run, now = taken(RedriveRun(), "router:a", NOW), NOW + timedelta(seconds=later_s)
    assert not_before(run, "router:a", now) is None
    assert run.held_until is not None
    assert (not_before(run, "router:b", now) is None) == (now >= run.held_until)
