"""An execution in the peer's words: every state has one of its statuses, what it lacks is made from what is there."""

from typing import Any

import pytest

from contracts.words import State
from gateway.peer_executions import (
    STATES_OF,
    claimable_fields,
    execution_fields,
    has_evidence,
    payload_of,
    status_of,
    task_of,
)

ULID = "01jx5k9v3m7q2w8r4t6y0zacde"


def view(**changes: Any) -> dict[str, Any]:
    """The view of a message queued for a worker."""
    facts: dict[str, Any] = {
        "id": f"msg_{ULID}",
        "execution_id": f"exec_{ULID}",
        "to": {"agent_id": "agent_0123456789ab", "slug": "mac", "owner": "max"},
        "subject": "Report",
        "message": "Write it.",
        "metadata": {},
        "send_at": None,
        "accepted_at": "2026-01-01T00:00:00.000Z",
        "ended_at": None,
        "state": "queued",
        "attempts": 0,
        "last_error": None,
        "claim": None,
        "lease": None,
        "outcome": None,
    }
    return facts | changes


def outcome(**changes: Any) -> dict[str, Any]:
    return {"success": True, "error": None, "state": "reported_success", "evidence": {}} | changes


@pytest.mark.parametrize("state", list(State))
def test_a_list_of_a_status_looks_where_executions_of_that_status_stand(state: State) -> None:
    for attempts in (0, 1):
        for told in (None, outcome(), outcome(success=False)):
            status = status_of(view(state=state.value, attempts=attempts, outcome=told))
            assert state in STATES_OF[status]


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, "pending"),
        ({"attempts": 1}, "retrying"),
        ({"state": "leased"}, "delivering"),
        ({"state": "delivered"}, "success"),
        ({"state": "delivered", "outcome": outcome()}, "success"),
        ({"state": "delivered", "outcome": outcome(success=False)}, "failed"),
        ({"state": "bg_exhausted"}, "failed"),
        ({"state": "live_unclaimed_no_session"}, "missed"),
        ({"state": "outcome_missing"}, "outcome_timeout"),
        ({"state": "inbox_read"}, "pending_outcome"),
    ],
)
def test_a_state_is_read_as_a_status(facts: dict[str, Any], status: str) -> None:
    assert status_of(view(**facts)) == status


def test_the_task_and_the_payload_come_from_the_metadata() -> None:
    told = view(metadata={"task": "report", "payload": {"month": 3}})

    assert (task_of(told), payload_of(told)) == ("report", {"month": 3})


@pytest.mark.parametrize("metadata", [{}, {"task": 7, "payload": [1]}])
def test_without_them_the_message_itself_is_the_payload(metadata: dict[str, Any]) -> None:
    told = view(metadata=metadata)

    assert task_of(told) is None
    assert payload_of(told) == {"task": None, "subject": "Report", "message": "Write it."}


def test_who_had_it_last_is_named_after_its_lease_has_ended() -> None:
    lease = {"holder": "w1", "leased_at": "2026-01-01T00:00:01.000Z"}

    leased = execution_fields(view(state="leased", lease=lease))
    ended = execution_fields(view(state="delivered", outcome=outcome(), ended_at="x"), holder="w1")

    assert (leased["claimed_by"], leased["claimed_at"]) == ("w1", "2026-01-01T00:00:01.000Z")
    assert (ended["claimed_by"], ended["delivered_at"], ended["outcome_state"]) == ("w1", "x", "reported_success")


def test_a_live_claim_says_when_it_was_attested() -> None:
    claim = {"label": "main", "claimed_at": "2026-01-01T00:00:01.000Z"}

    told = execution_fields(view(state="claimed", claim=claim))

    assert (told["claimed_by"], told["live_claimed_at"]) == ("main", "2026-01-01T00:00:01.000Z")


@pytest.mark.parametrize(
    ("facts", "trigger"),
    [({}, "message"), ({"send_at": "x"}, "scheduled"), ({"execution_id": f"exec_{ULID}r2"}, "replay")],
)
def test_what_started_it_is_told(facts: dict[str, Any], trigger: str) -> None:
    assert execution_fields(view(**facts))["triggered_by"] == trigger


def test_a_worker_gets_texts_where_it_needs_them() -> None:
    told = claimable_fields(view(subject=None, attempts=1))

    assert (told["cue_id"], told["cue_name"], told["attempt"]) == (f"msg_{ULID}", "mac", 2)


def test_empty_fields_are_no_evidence() -> None:
    assert not has_evidence(view())
    assert not has_evidence(view(outcome=outcome(evidence={"artifacts": []})))
    assert has_evidence(view(outcome=outcome(evidence={"external_id": "7"})))
