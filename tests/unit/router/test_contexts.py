"""Who may say that a message is in context: the one whose outcome would count."""

from dataclasses import replace

import pytest

from contracts.errors import Conflict
from contracts.words import TERMINAL_STATES, State
from router.contexts import check_holder
from router.execution import Execution
from tests.builders import WEBHOOK, accepted, execution, execution_in, leased


def refusal(standing: Execution, lease: int | None) -> str | None:
    try:
        check_holder(standing, lease)
    except Conflict as refused:
        return refused.code
    return None


def of_lease(*, fenced: bool) -> Execution:
    standing = execution_in(State.LEASED)
    assert standing.lease is not None
    return replace(standing, lease=replace(standing.lease, fenced=fenced))


@pytest.mark.parametrize(
    ("fenced", "lease", "code"),
    [
        (True, 1, None),
        (True, None, "stale_lease"),
        (True, 2, "stale_lease"),
        (False, None, None),
        (False, 2, "stale_lease"),
    ],
)
def test_of_a_lease_the_present_number_counts(fenced: bool, lease: int | None, code: str | None) -> None:
    assert refusal(of_lease(fenced=fenced), lease) == code


def test_of_a_claim_its_session_speaks_and_no_worker() -> None:
    assert refusal(execution_in(State.CLAIMED), None) is None
    assert refusal(execution_in(State.CLAIMED), 1) == "stale_lease"


def test_the_routers_own_lease_of_a_webhook_is_nobody_elses() -> None:
    assert refusal(execution(accepted(WEBHOOK), leased()), 1) == "stale_lease"


@pytest.mark.parametrize(
    "state", [State.SCHEDULED, State.WAITING, State.OFFERED, State.QUEUED, State.IN_INBOX, State.INBOX_READ]
)
def test_what_nobody_holds_is_in_no_context(state: State) -> None:
    assert refusal(execution_in(state), None) == "not_claimed"
    assert refusal(execution_in(state), 1) == "stale_lease"


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
def test_after_the_end_it_is_too_late(state: State) -> None:
    assert refusal(execution_in(state), None) == "execution_closed"
