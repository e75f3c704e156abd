"""An execution in the words of CueAPI's clients, made from the message view. Pure.

    ours                                             theirs, as `status`
    scheduled, waiting, offered, in_inbox            pending
    queued                                           pending; after a failed attempt retrying
    claimed, leased                                  delivering
    inbox_delivered, inbox_read                      pending_outcome
    delivered                                        success, or failed when the outcome says so
    outcome_missing                                  outcome_timeout
    live_unclaimed_…, expired, expired_unread        missed
    every other end                                  failed

The one place that knows both.
"""

from collections.abc import Mapping
from typing import Any, Final

from contracts.cues import MARK
from contracts.ids import ulid_of_execution
from contracts.records import JsonObject
from contracts.words import State

_PENDING: Final = (State.SCHEDULED, State.WAITING, State.OFFERED, State.IN_INBOX)
_MISSED: Final = (
    State.LIVE_UNCLAIMED_NO_FALLBACK,
    State.LIVE_UNCLAIMED_STALE_HEARTBEAT,
    State.LIVE_UNCLAIMED_NO_SESSION,
    State.EXPIRED_UNREAD,
    State.EXPIRED,
)
_FAILED: Final = (
    State.BG_EXHAUSTED,
    State.WEBHOOK_EXHAUSTED,
    State.CANCELLED,
    State.REJECTED,
    State.DEAD_LETTER,
    State.DISCARDED,
)
STATES_OF: Final[Mapping[str, tuple[State, ...]]] = {
    "pending": (*_PENDING, State.QUEUED),
    "delivering": (State.CLAIMED, State.LEASED),
    "success": (State.DELIVERED,),
    "failed": (State.DELIVERED, *_FAILED),
    "retrying": (State.QUEUED,),
    "retry_ready": (),
    "missed": _MISSED,
    "pending_outcome": (State.INBOX_DELIVERED, State.INBOX_READ),
    "outcome_timeout": (State.OUTCOME_MISSING,),
}
"""Where an execution of this status may stand: what a list asks the store for, before `status_of` looks closer."""

_STATUS: Final[Mapping[str, str]] = {
    state.value: status
    for status in ("pending", "delivering", "missed", "pending_outcome", "outcome_timeout", "failed")
    for state in STATES_OF[status]
}


def status_of(view: JsonObject) -> str:
    """Where an execution stands, in one of the words of `STATES_OF`."""
    match view["state"]:
        case State.QUEUED:
            return "retrying" if view["attempts"] else "pending"
        case State.DELIVERED:
            outcome = view["outcome"]
            return "success" if outcome is None or outcome["success"] else "failed"
        case state:
            return _STATUS[state]


def task_of(view: JsonObject) -> str | None:
    """What workers select by: `metadata.task`, when it is a text."""
    task = view["metadata"].get("task")
    return task if isinstance(task, str) else None


def payload_of(view: JsonObject) -> JsonObject:
    """What a worker is given: `metadata.payload` when it is an object, else the message itself as one."""
    payload = view["metadata"].get("payload")
    if isinstance(payload, dict):
        return payload
    return {"task": task_of(view), "subject": view["subject"], "message": view["message"]}


def execution_fields(view: JsonObject, *, holder: str | None = None) -> JsonObject:
    """What an execution of theirs has beyond the message view.

    `holder` is the worker that leased it last, where the caller knows: a view names the present one only.
    """
    claim, lease, outcome = view["claim"] or {}, view["lease"] or {}, view["outcome"] or {}
    claimed_at = claim.get("claimed_at") or lease.get("leased_at")
    return {
        "message_id": view["id"],
        "cue_id": cue_id_of(view),
        "task": task_of(view),
        "payload": payload_of(view),
        "scheduled_for": _scheduled_for(view),
        "status": status_of(view),
        "http_status": None,
        "error_message": outcome.get("error") or view["last_error"],
        "started_at": claimed_at,
        "claimed_at": claimed_at,
        "last_attempt_at": claimed_at,
        "delivered_at": view["ended_at"] if view["state"] == State.DELIVERED else None,
        "outcome_state": outcome.get("state"),
        "triggered_by": triggered_by(view),
        "claimed_by": lease.get("holder") or claim.get("label") or holder,
        "live_claimed_at": claim.get("claimed_at"),
        "created_at": view["accepted_at"],
    }


def triggered_by(view: JsonObject) -> str:
    parsed = ulid_of_execution(view["execution_id"])
    if parsed is not None and parsed[1] > 1:
        return "replay"
    by_cue: str | None = _mark(view).get("triggered_by")
    return by_cue or ("scheduled" if view["send_at"] else "message")


def cue_id_of(view: JsonObject) -> str | None:
    """The cue a message comes from; None for most."""
    found: str | None = _mark(view).get("id")
    return found


def _mark(view: JsonObject) -> JsonObject:
    """What the server wrote of the cue: clients cannot."""
    found: JsonObject = view["metadata"].get(MARK) or {}
    return found


def _scheduled_for(view: JsonObject) -> str:
    found: str = _mark(view).get("scheduled_for") or view["send_at"] or view["accepted_at"]
    return found


def claimable_fields(view: JsonObject) -> JsonObject:
    """What a worker of theirs reads of something it may claim; it needs texts where we have no cue."""
    return {
        "cue_id": cue_id_of(view) or view["id"],
        "cue_name": _mark(view).get("name") or view["subject"] or view["to"]["slug"],
        "task": task_of(view),
        "payload": payload_of(view),
        "scheduled_for": _scheduled_for(view),
        "attempt": view["attempts"] + 1,
    }


def has_evidence(view: JsonObject) -> bool:
    """Whether an outcome brought anything but empty fields as evidence."""
    outcome: Mapping[str, Any] = view["outcome"] or {}
    return any(outcome.get("evidence", {}).values())
