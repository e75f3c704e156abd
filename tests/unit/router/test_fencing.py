"""The fence: who may take an execution, and whose lease counts."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from contracts.errors import Conflict
from contracts.words import Channel, State
from router.execution import Execution, apply
from router.fencing import check_leasable, check_lease, leased
from tests.builders import NOW, execution_in

QUEUED, LEASED = execution_in(State.QUEUED), execution_in(State.LEASED)


def code_of(check: Callable[[], None]) -> str | None:
    try:
        check()
    except Conflict as refused:
        return refused.code
    return None


@pytest.mark.parametrize(("offset", "code"), [(0, None), (1, "stale_lease"), (-1, "stale_lease")])
def test_the_present_number_counts_and_no_other(offset: int, code: str | None) -> None:
    assert LEASED.lease is not None
    number = LEASED.lease.number + offset
    assert code_of(lambda: check_lease(LEASED, number)) == code


def test_no_number_counts_where_nobody_holds_a_lease() -> None:
    assert code_of(lambda: check_lease(QUEUED, QUEUED.leases)) == "stale_lease"


@pytest.mark.parametrize(
    ("execution", "code"),
    [
        (QUEUED, None),
        (LEASED, "already_claimed"),
        (execution_in(State.OFFERED), "not_claimable"),
        (execution_in(State.DELIVERED), "execution_closed"),
        (replace(QUEUED, channel=Channel.WEBHOOK), "not_claimable"),
        (replace(QUEUED, expires_at=NOW - timedelta(seconds=1)), "execution_closed"),
        (replace(QUEUED, retry_at=NOW), None),
        (replace(QUEUED, retry_at=NOW + timedelta(seconds=1)), "not_due"),
    ],
)
def test_what_waits_for_this_channel_and_is_due_is_to_be_had(execution: Execution, code: str | None) -> None:
    assert code_of(lambda: check_leasable(execution, Channel.BG, NOW)) == code


def test_each_lease_has_the_next_number_and_its_own_end() -> None:
    event = leased(replace(QUEUED, leases=4), "worker-1", 30, NOW, "key:k")
    assert (event.lease.number, event.lease.expires_at) == (5, NOW + timedelta(seconds=30))
    assert apply(QUEUED, leased(QUEUED, "worker-1", 30, NOW, "key:k")).state is State.LEASED
