"""The life of one execution. Pure: everything that changes its state is in this file.

    accepted ─┬─▶ scheduled ──released──▶ waiting | offered | queued | in_inbox
              ├─▶ waiting ──offered──▶ offered
              ├─▶ offered ──claimed──▶ claimed ──outcome_recorded──▶ delivered
              │      │                   └──in_context──▶ claimed
              │      ├──fell_back──▶ queued | in_inbox | waiting
              │      └──outcome_recorded──▶ delivered
              ├─▶ queued ──leased──▶ leased ──outcome_recorded──▶ delivered
              │                        ├──lease_extended──▶ leased
              │                        ├──in_context──▶ leased
              │                        └──attempt_failed──▶ queued
              ├─▶ in_inbox ──inbox_marked──▶ inbox_delivered | inbox_read
              │      └──outcome_recorded──▶ delivered
              │   inbox_delivered ──inbox_marked──▶ inbox_read ──outcome_recorded──▶ delivered
              │      └──outcome_recorded──▶ delivered
              └─▶ any open state ──ended──▶ the terminal state the event names

    any terminal state ──replayed──▶ the next execution, which begins as an acceptance does
    any dead letter ──discarded──▶ discarded
    delivered ──evidence_added──▶ delivered
        └──verification_changed──▶ delivered

`TABLE` is the law: an event that is not in the row of the present state raises `IllegalEvent` and changes nothing.
An execution that has ended stays as it is, apart from what its outcome is worth, and apart from a dead letter that is
discarded; a replay is another execution.
The state of a message is the fold of its events; nothing else is stored.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from contracts.errors import IllegalEvent
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
    LeaseExtended,
    Offered,
    OutcomeRecorded,
    Released,
    Replayed,
    Stored,
    VerificationChanged,
)
from contracts.records import Claim, JsonObject, Lease, Outcome, Step, Trace
from contracts.words import (
    DEAD_LETTER_STATES,
    OPEN_STATES,
    TERMINAL_STATES,
    Channel,
    DeliveryRoute,
    EffectiveMode,
    OutcomeState,
    Reason,
    State,
)
from router.channels import ALL
from router.decision import first_state

TABLE: Final[dict[State, frozenset[str]]] = {
    State.SCHEDULED: frozenset({"released", "ended"}),
    State.WAITING: frozenset({"offered", "ended"}),
    State.OFFERED: frozenset({"claimed", "fell_back", "outcome_recorded", "ended"}),
    State.CLAIMED: frozenset({"in_context", "outcome_recorded", "ended"}),
    State.QUEUED: frozenset({"leased", "ended"}),
    State.LEASED: frozenset({"lease_extended", "in_context", "attempt_failed", "outcome_recorded", "ended"}),
    State.IN_INBOX: frozenset({"inbox_marked", "outcome_recorded", "ended"}),
    State.INBOX_DELIVERED: frozenset({"inbox_marked", "outcome_recorded", "ended"}),
    State.INBOX_READ: frozenset({"outcome_recorded", "ended"}),
    **dict.fromkeys(TERMINAL_STATES, frozenset({"replayed"})),
    **dict.fromkeys(DEAD_LETTER_STATES, frozenset({"discarded", "replayed"})),
    State.DELIVERED: frozenset({"evidence_added", "verification_changed", "replayed"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One execution as its events leave it.

    `due_at` is when somebody has to act if nothing happens before: the claim window, the lease, the retry or the
    message's own end. `failed_attempts` counts leases that came to nothing. `in_context_at` is when whoever holds the
    execution, or held it last, said that the message was taken.
    """

    number: int
    state: State
    reason: Reason
    channel: Channel
    mode: EffectiveMode | None
    plan: tuple[Step, ...]
    trace: Trace
    expires_at: datetime
    updated_at: datetime
    was_offered: bool = False
    claim_before: datetime | None = None
    claim: Claim | None = None
    outcome_before: datetime | None = None
    lease: Lease | None = None
    in_context_at: datetime | None = None
    leases: int = 0
    failed_attempts: int = 0
    max_attempts: int = 1
    retry_at: datetime | None = None
    release_at: datetime | None = None
    last_error: str | None = None
    outcome: Outcome | None = None
    outcome_state: OutcomeState | None = None
    judged: bool = False
    evidence: JsonObject = field(default_factory=dict)
    ended_at: datetime | None = None
    discarded: Discarded | None = None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    @property
    def attempts(self) -> int:
        return self.leases

    @property
    def route(self) -> DeliveryRoute | None:
        """How the outcome came about, or how it will if nothing changes; None while that is not known."""
        return self.outcome.route if self.outcome else None

    @property
    def due_at(self) -> datetime | None:
        match self.state:
            case State.SCHEDULED:
                return self.release_at
            case State.OFFERED:
                return self.claim_before or self.expires_at
            case State.CLAIMED:
                return self.outcome_before
            case State.LEASED:
                return self.lease.expires_at if self.lease else None
            case State.QUEUED if self.channel is Channel.WEBHOOK:
                return min(self.retry_at or self.updated_at, self.expires_at)
            case _:
                return self.expires_at if self.is_open else None


def fold(history: History, number: int | None = None) -> Execution:
    """An execution of a message from its events: the newest, or the one of this number."""
    if number is None:
        return fold_events(history.events)
    return fold_events(each for each in history.events if each.event.execution <= number)


def fold_events(events: Iterable[Stored]) -> Execution:
    iterator = iter(events)
    first = next(iterator).event
    if not isinstance(first, Accepted):
        raise IllegalEvent("none", first.type)
    execution = begin(first)
    for stored in iterator:
        execution = apply(execution, stored.event)
    return execution


def begin(event: Accepted) -> Execution:
    """The state an accepted message starts in."""
    message = event.message
    if message.wish.send_at is not None and message.wish.send_at > event.at:
        return _scheduled(event, message.wish.send_at)
    return _routed(event, message.expires_at)


def begin_again(event: Replayed) -> Execution:
    """The state a replayed message starts in, as a new execution."""
    return _routed(event, event.expires_at)


def _scheduled(event: Accepted, release_at: datetime) -> Execution:
    return Execution(
        number=event.execution,
        state=State.SCHEDULED,
        reason=Reason.SCHEDULED,
        channel=event.message.wish.channel or Channel.INBOX,
        mode=None,
        plan=(),
        trace=event.decision.trace,
        expires_at=event.message.expires_at,
        updated_at=event.at,
        release_at=release_at,
    )


def _routed(event: Accepted | Released | Replayed, expires_at: datetime) -> Execution:
    decision = event.decision
    step = decision.steps[0] if decision.steps else None
    state = first_state(decision)
    return Execution(
        number=event.execution,
        state=state,
        reason=decision.reason,
        channel=step.channel if step else Channel.LIVE,
        mode=step.mode if step else None,
        plan=decision.steps[1:],
        trace=decision.trace,
        expires_at=expires_at,
        updated_at=event.at,
        was_offered=state is State.OFFERED,
        claim_before=event.claim_before,
        max_attempts=event.max_attempts,
        ended_at=event.at if decision.ending else None,
    )


def apply(execution: Execution, event: Event) -> Execution:
    """The execution after `event`. Raises `IllegalEvent` when the table does not know the pair."""
    if event.type not in TABLE.get(execution.state, frozenset()):
        raise IllegalEvent(execution.state.value, event.type)
    return _CHANGES[type(event)](replace(execution, updated_at=event.at), event)


def _released(execution: Execution, event: Released) -> Execution:
    return _routed(event, execution.expires_at)


def _replayed(execution: Execution, event: Replayed) -> Execution:
    if event.execution != execution.number + 1:
        raise IllegalEvent(execution.state.value, event.type)
    return begin_again(event)


def _offered(execution: Execution, event: Offered) -> Execution:
    return replace(
        execution,
        state=State.OFFERED,
        reason=Reason.OK,
        claim_before=event.claim_before,
        was_offered=True,
        trace=execution.trace + event.trace,
    )


def _claimed(execution: Execution, event: Claimed) -> Execution:
    # `claim_before` stays: the nonce of the offer is derived from it, and the winner may show it again.
    return replace(execution, state=State.CLAIMED, claim=event.claim, outcome_before=event.outcome_before)


def _fell_back(execution: Execution, event: FellBack) -> Execution:
    back_to_live = event.step.channel is Channel.LIVE
    return replace(
        execution,
        state=State.WAITING if back_to_live else ALL[event.step.channel].first_state,
        reason=Reason.CLAIM_WINDOW_CLOSED,
        channel=event.step.channel,
        mode=event.step.mode,
        plan=execution.plan if back_to_live else execution.plan[1:],
        trace=execution.trace + event.trace,
        claim_before=None,
        max_attempts=event.max_attempts,
    )


def _leased(execution: Execution, event: Leased) -> Execution:
    if event.lease.number <= execution.leases:
        raise IllegalEvent(execution.state.value, event.type)
    return replace(
        execution,
        state=State.LEASED,
        lease=event.lease,
        leases=event.lease.number,
        in_context_at=None,
        retry_at=None,
    )


def _lease_extended(execution: Execution, event: LeaseExtended) -> Execution:
    lease = execution.lease
    if lease is None or lease.number != event.number:
        raise IllegalEvent(execution.state.value, event.type)
    return replace(execution, lease=replace(lease, expires_at=event.expires_at))


def _in_context(execution: Execution, event: InContext) -> Execution:
    held = execution.lease.number if execution.lease else None
    if event.lease != held or execution.in_context_at is not None:
        raise IllegalEvent(execution.state.value, event.type)
    return replace(execution, in_context_at=event.at)


def _attempt_failed(execution: Execution, event: AttemptFailed) -> Execution:
    if event.number != execution.leases:
        raise IllegalEvent(execution.state.value, event.type)
    return replace(
        execution,
        state=State.QUEUED,
        reason=event.reason,
        lease=None,
        in_context_at=None,
        failed_attempts=execution.failed_attempts + 1,
        retry_at=event.retry_at,
        last_error=event.detail,
    )


def _inbox_marked(execution: Execution, event: InboxMarked) -> Execution:
    if event.state not in (State.INBOX_DELIVERED, State.INBOX_READ):
        raise IllegalEvent(execution.state.value, event.type)
    return replace(execution, state=event.state)


def _outcome_recorded(execution: Execution, event: OutcomeRecorded) -> Execution:
    return replace(
        execution,
        state=State.DELIVERED,
        reason=event.reason,
        outcome=event.outcome,
        outcome_state=event.outcome.state,
        evidence=event.outcome.evidence,
        lease=None,
        ended_at=event.at,
    )


def _evidence_added(execution: Execution, event: EvidenceAdded) -> Execution:
    evidence = {**execution.evidence, **event.evidence}
    return replace(execution, evidence=evidence, outcome_state=event.outcome_state)


def _verification_changed(execution: Execution, event: VerificationChanged) -> Execution:
    return replace(execution, outcome_state=event.outcome_state, judged=True)


def _ended(execution: Execution, event: Ended) -> Execution:
    if event.state in OPEN_STATES:
        raise IllegalEvent(execution.state.value, event.type)
    lost_a_lease = execution.state is State.LEASED
    return replace(
        execution,
        state=event.state,
        reason=event.reason,
        lease=None,
        failed_attempts=execution.failed_attempts + lost_a_lease,
        last_error=event.detail or execution.last_error,
        trace=execution.trace + event.trace,
        ended_at=event.at,
    )


def _discarded(execution: Execution, event: Discarded) -> Execution:
    # `ended_at` and the last error stay: they say what was given up.
    return replace(execution, state=State.DISCARDED, reason=Reason.DISCARDED_BY_RECEIVER, discarded=event)


_CHANGES: Final[dict[type[Any], Callable[[Execution, Any], Execution]]] = {
    Released: _released,
    Replayed: _replayed,
    Offered: _offered,
    Claimed: _claimed,
    FellBack: _fell_back,
    Leased: _leased,
    LeaseExtended: _lease_extended,
    InContext: _in_context,
    AttemptFailed: _attempt_failed,
    InboxMarked: _inbox_marked,
    OutcomeRecorded: _outcome_recorded,
    EvidenceAdded: _evidence_added,
    VerificationChanged: _verification_changed,
    Ended: _ended,
    Discarded: _discarded,
}
