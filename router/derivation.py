"""What owners are told of a message's life: tenant events out of ledger events. Pure.

One ledger event makes any number of tenant events, none included, each for the receiving owner and, if that is
another, for the sending one. The same ledger event always makes the same events under the same ids.

`message.delivered` is told once per execution: when the message has reached its receiver. It lies in the inbox, a
session claimed it, a host took it, a receiver's server answered; at the latest its outcome is there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from contracts import ids
from contracts.events import (
    Accepted,
    AttemptFailed,
    Claimed,
    Discarded,
    Ended,
    Event,
    EvidenceAdded,
    FellBack,
    History,
    InboxMarked,
    InContext,
    Leased,
    Offered,
    OutcomeRecorded,
    Released,
    Replayed,
    Stored,
    VerificationChanged,
)
from contracts.records import Decision, JsonObject, Message
from contracts.tenant_events import EventType, TenantEvent
from contracts.words import DEAD_LETTER_STATES, OPEN_STATES, Channel, Reason, State
from router.channels import ALL
from router.decision import first_state
from router.explain import instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Gist:
    """What stays true of a message, without what no event shows. `data` is what every event of an execution says."""

    ulid: str
    owners: tuple[str, ...]
    subject: str | None
    expects_reply: bool
    data: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What later events of a message need to know of it. `has_arrived`: its execution's `message.delivered` is told."""

    gist: Gist
    channel: Channel | None = None
    has_arrived: bool = False


Told = tuple[EventType, JsonObject]


def facts_before(history: History, seq: int) -> Facts | None:
    """A message's facts as they were before the event at `seq`; None when that one is its first."""
    facts: Facts | None = None
    for stored in history.events:
        if stored.seq >= seq:
            break
        facts, _ = _step(facts, history.ulid, stored.event)
    return facts


def is_silent(event: Event) -> bool:
    """Whether an event tells nothing and changes no facts: then nobody has to know the message it belongs to."""
    if isinstance(event, InboxMarked):
        return event.state is not State.INBOX_READ
    return type(event) not in _RULES


def derive(facts: Facts | None, ulid: str, stored: Stored) -> tuple[Facts, list[TenantEvent]]:
    """The tenant events of one ledger event, and the facts after it. `facts` is None for a message's first."""
    after, told = _step(facts, ulid, stored.event)
    return after, [
        _event(after.gist, owner, stored, index, kind, data)
        for owner in after.gist.owners
        for index, (kind, data) in enumerate(told)
    ]


def _step(facts: Facts | None, ulid: str, event: Event) -> tuple[Facts, list[Told]]:
    if isinstance(event, Accepted):
        facts = Facts(gist=_gist(event.message, ulid))
    if facts is None:
        raise ValueError(f"{event.type} before the message was accepted")
    rule = _RULES.get(type(event))
    return rule(facts, event) if rule else (facts, [])


def _accepted(facts: Facts, event: Accepted) -> tuple[Facts, list[Told]]:
    scheduled = event.message.wish.send_at is not None and event.message.wish.send_at > event.at
    if scheduled:
        # Before its time nobody on the receiving side is to know what it says.
        data = {"state": State.SCHEDULED.value, "send_at": instant(event.message.wish.send_at)}
        return facts, [(EventType.MESSAGE_ACCEPTED, data)]
    return _routed(facts, EventType.MESSAGE_ACCEPTED, event.decision, event.claim_before)


def _released(facts: Facts, event: Released) -> tuple[Facts, list[Told]]:
    return _routed(facts, EventType.MESSAGE_RELEASED, event.decision, event.claim_before)


def _replayed(facts: Facts, event: Replayed) -> tuple[Facts, list[Told]]:
    execution_id = ids.execution_id(facts.gist.ulid, event.execution)
    anew = Facts(gist=replace(facts.gist, data={**facts.gist.data, "execution_id": execution_id}))
    return _routed(anew, EventType.MESSAGE_REPLAYED, event.decision, event.claim_before)


def _routed(
    facts: Facts, kind: EventType, decision: Decision, claim_before: datetime | None
) -> tuple[Facts, list[Told]]:
    step, state = (decision.steps[0] if decision.steps else None), first_state(decision)
    data: JsonObject = {
        "subject": facts.gist.subject,
        "state": state.value,
        "reason": decision.reason.value,
        "effective_delivery_mode": step.mode.value if step else None,
    }
    told: list[Told] = [(kind, data)]
    facts = Facts(gist=facts.gist, channel=step.channel if step else None, has_arrived=facts.has_arrived)
    if state is State.OFFERED:
        told.append((EventType.EXECUTION_OFFERED, {"claim_before": instant(claim_before)}))
    if state not in OPEN_STATES:
        told += _end(state, decision.reason)
    return _arrived(facts, told, state.value) if state is State.IN_INBOX else (facts, told)


def _offered(facts: Facts, event: Offered) -> tuple[Facts, list[Told]]:
    return facts, [(EventType.EXECUTION_OFFERED, {"claim_before": instant(event.claim_before)})]


def _claimed(facts: Facts, event: Claimed) -> tuple[Facts, list[Told]]:
    data = {
        "label": event.claim.label,
        "level": event.claim.level.value,
        "outcome_before": instant(event.outcome_before),
    }
    return _arrived(facts, [(EventType.EXECUTION_CLAIMED, data)], State.CLAIMED.value)


def _fell_back(facts: Facts, event: FellBack) -> tuple[Facts, list[Told]]:
    back_to_live = event.step.channel is Channel.LIVE
    state = State.WAITING if back_to_live else ALL[event.step.channel].first_state
    data = {"effective_delivery_mode": event.step.mode.value, "state": state.value}
    facts, told = replace(facts, channel=event.step.channel), [(EventType.EXECUTION_FELL_BACK, data)]
    return _arrived(facts, told, state.value) if state is State.IN_INBOX else (facts, told)


def _leased(facts: Facts, event: Leased) -> tuple[Facts, list[Told]]:
    lease = event.lease
    data = {"number": lease.number, "holder": lease.holder, "expires_at": instant(lease.expires_at)}
    told: list[Told] = [(EventType.EXECUTION_LEASED, data)]
    # A router's lease of a webhook is an attempt, and says nothing of the receiver.
    return (facts, told) if facts.channel is Channel.WEBHOOK else _arrived(facts, told, State.LEASED.value)


def _in_context(facts: Facts, event: InContext) -> tuple[Facts, list[Told]]:
    return facts, [(EventType.EXECUTION_IN_CONTEXT, {"number": event.lease})]


def _attempt_failed(facts: Facts, event: AttemptFailed) -> tuple[Facts, list[Told]]:
    data = {
        "number": event.number,
        "reason": event.reason.value,
        "retry_at": instant(event.retry_at),
        "http_status": event.http_status,
    }
    return facts, [(EventType.EXECUTION_ATTEMPT_FAILED, data)]


def _inbox_marked(facts: Facts, event: InboxMarked) -> tuple[Facts, list[Told]]:
    is_read = event.state is State.INBOX_READ
    return facts, [(EventType.MESSAGE_READ, {"state": event.state.value})] if is_read else []


def _outcome_recorded(facts: Facts, event: OutcomeRecorded) -> tuple[Facts, list[Told]]:
    outcome = event.outcome
    data = {
        "state": State.DELIVERED.value,
        "reason": event.reason.value,
        "success": outcome.success,
        "executed_via": outcome.executed_via,
        "delivery_route": outcome.route.value if outcome.route else None,
        "outcome_state": outcome.state.value if outcome.state else None,
    }
    facts, told = _arrived(facts, [], State.DELIVERED.value)
    return facts, [*told, (EventType.EXECUTION_OUTCOME, data)]


def _evidence_added(facts: Facts, event: EvidenceAdded) -> tuple[Facts, list[Told]]:
    return facts, [(EventType.EXECUTION_OUTCOME_CHANGED, {"outcome_state": event.outcome_state.value})]


def _verification_changed(facts: Facts, event: VerificationChanged) -> tuple[Facts, list[Told]]:
    data = {"outcome_state": event.outcome_state.value, "reason": event.reason}
    return facts, [(EventType.EXECUTION_OUTCOME_CHANGED, data)]


def _ended(facts: Facts, event: Ended) -> tuple[Facts, list[Told]]:
    return facts, _end(event.state, event.reason)


def _discarded(facts: Facts, event: Discarded) -> tuple[Facts, list[Told]]:
    return facts, [(EventType.MESSAGE_DISCARDED, {"state": State.DISCARDED.value, "discard_reason": event.reason})]


def _end(state: State, reason: Reason) -> list[Told]:
    data = {"state": state.value, "reason": reason.value}
    dead: list[Told] = [(EventType.MESSAGE_DEAD_LETTERED, data)] if state in DEAD_LETTER_STATES else []
    return [(EventType.EXECUTION_ENDED, data), *dead]


def _arrived(facts: Facts, told: Sequence[Told], state: str) -> tuple[Facts, list[Told]]:
    if facts.has_arrived:
        return facts, list(told)
    data = {
        "subject": facts.gist.subject,
        "state": state,
        "channel": facts.channel.value if facts.channel else None,
        "expects_reply": facts.gist.expects_reply,
    }
    arrived = Facts(gist=facts.gist, channel=facts.channel, has_arrived=True)
    return arrived, [*told, (EventType.MESSAGE_DELIVERED, data)]


def _gist(message: Message, ulid: str) -> Gist:
    context = message.context
    return Gist(
        ulid=ulid,
        owners=tuple(dict.fromkeys((message.agent_owner, message.sender.owner))),
        subject=message.subject,
        expects_reply=context.expects_reply,
        data={
            "message_id": message.id,
            "execution_id": ids.execution_id(ulid),
            "recipient_agent_id": message.agent_id,
            "sender_agent_id": message.sender.agent_id,
            "sender_owner": message.sender.owner,
            "thread_id": message.thread,
            "reply_to": context.reply_to,
            "correlation_id": context.correlation_id,
            "priority": context.priority,
        },
    )


def _event(gist: Gist, owner: str, stored: Stored, index: int, kind: EventType, data: JsonObject) -> TenantEvent:
    return TenantEvent(
        id=f"evt_{stored.seq}_{index}",
        type=kind,
        owner=owner,
        agent_id=gist.data["recipient_agent_id"],
        subject=gist.data["message_id"],
        time=stored.event.at,
        data={**gist.data, **data},
        ledger_seq=stored.seq,
    )


_RULES: Final[dict[type[Any], Callable[[Facts, Any], tuple[Facts, list[Told]]]]] = {
    Accepted: _accepted,
    Released: _released,
    Replayed: _replayed,
    Offered: _offered,
    Claimed: _claimed,
    FellBack: _fell_back,
    Leased: _leased,
    InContext: _in_context,
    AttemptFailed: _attempt_failed,
    InboxMarked: _inbox_marked,
    OutcomeRecorded: _outcome_recorded,
    EvidenceAdded: _evidence_added,
    VerificationChanged: _verification_changed,
    Ended: _ended,
    Discarded: _discarded,
}
