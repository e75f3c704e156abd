"""What can be claimed now: neither too early, nor too late, to the millisecond."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from contracts.errors import Conflict
from contracts.events import Event
from contracts.words import Channel, State
from gateway.claimable import claimable_at
from router.execution import fold
from router.explain import message_view
from router.fencing import check_leasable
from tests.builders import NOW, TTL_S, WINDOW_S, accepted, after, attempt_failed, execution, history, leased

MILLISECOND = timedelta(milliseconds=1)
WAITING: tuple[Event, ...] = (accepted(Channel.BG), leased(), attempt_failed(at_s=5, pause_s=10))


def view(*events: Event, **changes: Any) -> dict[str, Any]:
    told = history(*events)
    return {**message_view(told, fold(told), trace=False), **changes}


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (after(14.9), False),
        (after(15), False),
        (after(15) + MILLISECOND, True),
        (after(TTL_S) - MILLISECOND, True),
        (after(TTL_S), False),
    ],
)
def test_an_attempt_is_claimable_from_its_time_to_the_messages_end(at: datetime, expected: bool) -> None:
    assert claimable_at(at)(view(*WAITING)) is expected


@pytest.mark.parametrize("microseconds", [1, 400, 999])
@pytest.mark.parametrize("border_s", [15, TTL_S])
def test_what_is_listed_can_be_leased_at_that_instant(border_s: float, microseconds: int) -> None:
    for offset in (-2, -1, 0, 1, 2):
        now = after(border_s) + offset * MILLISECOND + timedelta(microseconds=microseconds)
        try:
            check_leasable(execution(*WAITING), Channel.BG, now)
        except Conflict:
            assert not claimable_at(now)(view(*WAITING))


def test_what_was_never_tried_is_claimable_at_once() -> None:
    assert claimable_at(NOW)(view(accepted(Channel.BG)))


def test_a_row_of_an_older_program_is_listed_as_it_was() -> None:
    old = view(*WAITING)
    del old["retry_at"]
    assert claimable_at(after(6))(old)


@pytest.mark.parametrize(("at_s", "expected"), [(0, True), (WINDOW_S - 1, True), (WINDOW_S, False)])
def test_an_offer_is_claimable_while_its_window_is_open(at_s: float, expected: bool) -> None:
    offer = view(accepted(Channel.LIVE))
    assert offer["state"] == State.OFFERED
    assert claimable_at(after(at_s))(offer) is expected


def test_a_task_narrows_it() -> None:
    report = view(accepted(Channel.BG), metadata={"task": "report"})
    assert claimable_at(NOW, task="report")(report)
    assert not claimable_at(NOW, task="other")(report)
