"""A message as people and programs read it: the views, made from its events and nothing else. Pure.

Views hold plain JSON values, words as plain strings: a JSON writer takes twenty times as long over a string enum.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Any

from contracts import ids
from contracts.events import Accepted, History, Released, Replayed, Stored
from contracts.records import Claim, Decision, GateResult, Lease, Message, Step, Trace
from contracts.words import State
from router.decision import first_state
from router.execution import Execution

View = dict[str, Any]


def message_view(history: History, execution: Execution, *, trace: bool = True) -> View:
    """The message view of docs/api.md: what was asked, which way it went, where it stands.

    `trace=False` leaves the trace out, for lists. Instants are RFC 3339 strings; the rest is JSON values.
    """
    message = history.message
    view = {
        "id": message.id,
        "execution_id": ids.execution_id(history.ulid, execution.number),
        "to": {"agent_id": message.agent_id, "slug": message.agent_slug, "owner": message.agent_owner},
        "from": {
            "owner": message.sender.owner,
            "agent_id": message.sender.agent_id,
            "slug": message.sender.agent_slug,
            "key_id": message.sender.key_id,
        },
        "subject": message.subject,
        "message": message.body,
        "metadata": message.metadata,
        **_context(message),
        "delivery_mode": message.wish.delivery_mode,
        "live_fallback_mode": message.wish.fallback.value,
        **_standing(message, execution),
    }
    if execution.discarded:
        discarded = execution.discarded
        view["discarded"] = {"reason": discarded.reason, "by": discarded.by, "at": instant(discarded.at)}
    if trace:
        view["trace"] = trace_view(execution.trace)
    return view


def trace_view(trace: Trace) -> list[View]:
    return [_gate(each) for each in trace]


def decision_view(decision: Decision) -> View:
    """What `POST /v1/route` says of a decision, apart from the addressee."""
    return {
        "effective_delivery_mode": decision.steps[0].mode.value if decision.steps else None,
        "state": first_state(decision).value,
        "reason": decision.reason.value,
        "plan": [_step(each) for each in decision.steps],
        "trace": trace_view(decision.trace),
    }


def event_views(history: History) -> list[View]:
    """Every event with its sequence, oldest first. The accept event is shown without the message it carries."""
    return [_event(each) for each in history.events]


def _context(message: Message) -> View:
    context = message.context
    return {
        "thread_id": message.thread,
        "reply_to": context.reply_to,
        "correlation_id": context.correlation_id,
        "expects_reply": context.expects_reply,
        "reply_to_agent": context.reply_to_agent,
        "priority": context.priority,
        "priority_downgraded": context.priority_downgraded,
        "auto_reply": context.is_auto_reply,
        "hop": context.hop,
        "chain": list(context.chain),
        "send_at": instant(message.wish.send_at),
        "verification": message.wish.verification.value,
    }


def _standing(message: Message, execution: Execution) -> View:
    return {
        "effective_delivery_mode": execution.mode.value if execution.mode else None,
        "delivery_route": execution.route.value if execution.route else None,
        "state": execution.state.value,
        "reason": execution.reason.value,
        "terminal": not execution.is_open,
        "accepted_at": instant(message.accepted_at),
        "expires_at": instant(execution.expires_at),
        "updated_at": instant(execution.updated_at),
        "ended_at": instant(execution.ended_at),
        "deadline_at": instant(execution.due_at),
        "claim": _claim(execution.claim),
        "lease": _lease(execution.lease),
        "in_context_at": instant(execution.in_context_at),
        "attempts": execution.attempts,
        "max_attempts": execution.max_attempts,
        "retry_at": instant(execution.retry_at) if execution.state is State.QUEUED else None,
        "last_error": execution.last_error,
        "outcome": _outcome(execution),
    }


@lru_cache(maxsize=256)
def instant(at: datetime | None) -> str | None:
    """RFC 3339 in UTC with milliseconds and `Z`. Remembered: a view shows the same few instants again and again."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else None


def _gate(result: GateResult) -> View:
    return {
        "gate": result.gate.value,
        "channel": result.channel.value if result.channel else None,
        "verdict": result.verdict.value,
        "reason": result.reason.value,
        "facts": result.facts,
    }


def _step(step: Step) -> View:
    return {"channel": step.channel.value, "mode": step.mode.value}


def _claim(claim: Claim | None) -> View | None:
    if claim is None:
        return None
    return {"label": claim.label, "level": claim.level.value, "claimed_at": instant(claim.claimed_at)}


def _lease(lease: Lease | None) -> View | None:
    if lease is None:
        return None
    return {
        "number": lease.number,
        "holder": lease.holder,
        "leased_at": instant(lease.leased_at),
        "expires_at": instant(lease.expires_at),
    }


def _outcome(execution: Execution) -> View | None:
    outcome = execution.outcome
    if outcome is None:
        return None
    return {
        "success": outcome.success,
        "result": outcome.result,
        "error": outcome.error,
        "metadata": outcome.metadata,
        "executed_via": outcome.executed_via,
        "route": outcome.route.value if outcome.route else None,
        "route_reason": outcome.route_reason,
        "recorded_at": instant(execution.ended_at),
        "state": execution.outcome_state.value if execution.outcome_state else None,
        "evidence": execution.evidence,
    }


def _event(stored: Stored) -> View:
    event = stored.event
    fields = {
        name: plain(getattr(event, name))
        for name in event.__dataclass_fields__
        if name not in ("type", "at", "by", "message", "answer")
    }
    if isinstance(event, Accepted | Released | Replayed):
        fields["decision"] = decision_view(event.decision)
    return {"seq": stored.seq, "at": instant(event.at), "by": event.by, "type": event.type, **fields}


def plain(value: Any) -> Any:
    """JSON values out of records: dataclasses become objects, enums their values, instants strings."""
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, GateResult):
        return _gate(value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value
