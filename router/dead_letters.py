"""Dead letters: messages whose newest execution ended where we gave up. Which they are, and which are asked for. Pure.

    terminal state                                            dead letter?
    live_unclaimed_…, bg_exhausted, webhook_exhausted,
    expired, expired_unread, outcome_missing, rejected,
    dead_letter                                               yes
    delivered, the receiver says that it failed               no; redriven where a filter names `delivered`
    delivered otherwise, cancelled, discarded                 no

The receiver of a failed delivery has had the message and has answered: whether it is to be asked again is somebody's
decision and not the default.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from contracts.events import Accepted, Ended, Event, History, Released, Replayed
from contracts.redrives import FAILED, DeadLetterFilter
from contracts.words import DEAD_LETTER_STATES, Reason, State
from router.execution import Execution


def is_dead_letter(execution: Execution) -> bool:
    return execution.state in DEAD_LETTER_STATES


def is_redrivable(execution: Execution) -> bool:
    """A dead letter, or what its receiver says that it failed at."""
    has_failed = execution.outcome is not None and not execution.outcome.success
    return is_dead_letter(execution) or (execution.state is FAILED and has_failed)


def was_redriven_by(history: History, author: str) -> bool:
    return any(isinstance(each.event, Replayed) and each.event.by == author for each in history.events)


def death_in(event: Event) -> tuple[State, Reason] | None:
    """How a message became a dead letter by this event; None when it did not."""
    if isinstance(event, Accepted | Released | Replayed):
        ending, reason = event.decision.ending, event.decision.reason
    elif isinstance(event, Ended):
        ending, reason = event.state, event.reason
    else:
        return None
    return (ending, reason) if ending in DEAD_LETTER_STATES else None


def takes(wanted: DeadLetterFilter, view: Mapping[str, Any], *, ended_before: datetime | None = None) -> bool:
    """Whether a message, as lists show it, is asked for. Agent, states and channel were looked up by index."""
    if view["state"] == FAILED and (view["outcome"] is None or view["outcome"]["success"]):
        return False
    if view["ended_at"] is None:
        return False
    ended_at = datetime.fromisoformat(view["ended_at"])
    return (
        (not wanted.reasons or view["reason"] in wanted.reasons)
        and (wanted.since is None or ended_at >= wanted.since)
        and (wanted.until is None or ended_at <= wanted.until)
        and (ended_before is None or ended_at < ended_before)
    )
