"""The gates: one yes/no question each, with a stable reason and the facts it saw. Pure.

    agent_active        is the agent taking messages at all?
    capability          does the agent declare this channel?
    session_attached    live:    is any session attached?
    heartbeat_fresh     live:    was one of them heard of within `heartbeat_age_sec`?
    push_path           live:    do pushes reach them? (asked of sessions that echo)
    host_fresh          bg:      was the host's monitor heard of? (a "no" waits, it does not refuse)
    webhook_configured  webhook: is there a URL, and has its receiver not answered 410 Gone?

A gate never raises: a missing fact is an answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Final

from contracts.records import Agent, GateResult, Reachability, SessionFact
from contracts.words import AgentStatus, Channel, Gate, Reason, Verdict

TENTH: Final = timedelta(milliseconds=100)
ECHO_BOUND_S: Final = 10
"""How long an echo may take unless set otherwise: a third of the usual claim window, so that a session still has time
to claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Everything a gate may look at. `echo_bound_s`: how long an echo may stay unanswered."""

    recipient: Agent
    reach: Reachability
    now: datetime
    echo_bound_s: int = ECHO_BOUND_S


GateFunction = Callable[[Question, Channel], GateResult]


def agent_active(q: Question) -> GateResult:
    """Ask whether the agent takes messages: `active`, and not deleted."""
    takes_messages = q.recipient.status is AgentStatus.ACTIVE and q.recipient.deleted_at is None
    reason = Reason.OK if takes_messages else Reason.AGENT_INACTIVE
    return _answer(Gate.AGENT_ACTIVE, None, reason, status=q.recipient.status.value)


def capability(q: Question, channel: Channel) -> GateResult:
    """Ask whether the agent declared this channel."""
    declared = q.recipient.delivery_capabilities
    reason = Reason.OK if channel in declared else Reason.CAPABILITY_NOT_DECLARED
    return _answer(Gate.CAPABILITY, channel, reason, declared=[each.value for each in declared])


def session_attached(q: Question, channel: Channel) -> GateResult:
    """Ask whether any live session is attached."""
    sessions = q.reach.sessions
    reason = Reason.OK if sessions else Reason.NO_SESSION_ATTACHED
    return _answer(Gate.SESSION_ATTACHED, channel, reason, attached=len(sessions))


def heartbeat_fresh(q: Question, channel: Channel) -> GateResult:
    """Ask whether the freshest attached session was heard of at most `heartbeat_age_sec` seconds ago.

    The default of 120 s is two missed beats of a 60 s monitor (seed 003, "Heartbeat-fresh gating").
    """
    max_age_s = q.recipient.heartbeat_age_sec
    if not q.reach.known:
        return _answer(Gate.HEARTBEAT_FRESH, channel, Reason.HEARTBEAT_UNKNOWN, max_age_s=max_age_s)
    freshest = freshest_session(q.reach.sessions)
    if freshest is None or freshest.last_seen_at is None:
        return _answer(Gate.HEARTBEAT_FRESH, channel, Reason.HEARTBEAT_MISSING, max_age_s=max_age_s)
    reason = Reason.OK if _is_fresh(freshest, q) else Reason.HEARTBEAT_STALE
    facts = {"gone": True} if freshest.is_gone else {}
    age_s = age(freshest.last_seen_at, q.now)
    return _answer(
        Gate.HEARTBEAT_FRESH, channel, reason, age_s=age_s, max_age_s=max_age_s, label=freshest.label, **facts
    )


def push_path(q: Question, channel: Channel) -> GateResult:
    """Ask whether the last echo along the way of pushes was answered in time, or may still be.

    A session that cannot echo is not judged by it: one of those among the fresh ones is enough. Nor is anybody who was
    never asked: what is not known speaks for the session.
    """
    fresh = [each for each in q.reach.sessions if _is_fresh(each, q)]
    echoing = sum(each.echoes for each in fresh)
    if not echoing or echoing < len(fresh):
        return _answer(Gate.PUSH_PATH, channel, Reason.OK, echoing=echoing)
    asked_at, answered_at = q.reach.echo_asked_at, q.reach.echo_answered_at
    ages = {"asked_age_s": asked_at, "answered_age_s": answered_at}
    facts = {name: age(at, q.now) for name, at in ages.items() if at is not None}
    reason = _echo_reason(asked_at, answered_at, q)
    return _answer(Gate.PUSH_PATH, channel, reason, echoing=echoing, bound_s=q.echo_bound_s, **facts)


def host_fresh(q: Question, channel: Channel) -> GateResult:
    """Ask whether the host's monitor beats. A stale host does not refuse: the message waits durably and says so."""
    max_age_s = q.recipient.heartbeat_age_sec
    if not q.reach.known:
        return _wait(Gate.HOST_FRESH, channel, Reason.HOST_UNKNOWN, max_age_s=max_age_s)
    if q.reach.host_last_seen_at is None:
        return _wait(Gate.HOST_FRESH, channel, Reason.HOST_NEVER_SEEN, max_age_s=max_age_s)
    age_s = age(q.reach.host_last_seen_at, q.now)
    if age_s > max_age_s:
        return _wait(Gate.HOST_FRESH, channel, Reason.HOST_STALE, age_s=age_s, max_age_s=max_age_s)
    return _answer(Gate.HOST_FRESH, channel, Reason.OK, age_s=age_s, max_age_s=max_age_s)


def webhook_configured(q: Question, channel: Channel) -> GateResult:
    """Ask whether there is a receiver to post to. The URL itself is nobody's business but the owner's."""
    if q.recipient.webhook_url is None:
        return _answer(Gate.WEBHOOK_CONFIGURED, channel, Reason.WEBHOOK_URL_MISSING)
    if q.recipient.webhook_disabled_at is not None:
        return _answer(Gate.WEBHOOK_CONFIGURED, channel, Reason.WEBHOOK_DISABLED)
    return _answer(Gate.WEBHOOK_CONFIGURED, channel, Reason.OK)


def freshest_session(sessions: tuple[SessionFact, ...]) -> SessionFact | None:
    """The session heard of last, before all those that are gone; None when none was ever heard of."""
    heard = [((not each.is_gone, each.last_seen_at), each) for each in sessions if each.last_seen_at is not None]
    return max(heard, key=itemgetter(0))[1] if heard else None


def age(then: datetime, now: datetime) -> float:
    """Seconds since `then`, never negative, because two servers' clocks may differ a little.

    Rounded up to the tenth: what is older than a limit never looks as if it were not.
    """
    tenths = -((then - now) // TENTH)
    return max(0, tenths) / 10


def is_unanswered(asked_at: datetime | None, answered_at: datetime | None) -> bool:
    """Say whether an echo was asked that has not been answered since."""
    return asked_at is not None and (answered_at is None or answered_at < asked_at)


def is_overdue(asked_at: datetime | None, answered_at: datetime | None, now: datetime, *, bound_s: int) -> bool:
    """Say whether such an echo's time is up."""
    return asked_at is not None and is_unanswered(asked_at, answered_at) and age(asked_at, now) > bound_s


def _is_fresh(session: SessionFact, q: Question) -> bool:
    seen_at = session.last_seen_at
    return seen_at is not None and not session.is_gone and age(seen_at, q.now) <= q.recipient.heartbeat_age_sec


def _echo_reason(asked_at: datetime | None, answered_at: datetime | None, q: Question) -> Reason:
    if not is_overdue(asked_at, answered_at, q.now, bound_s=q.echo_bound_s):
        return Reason.OK
    return Reason.ECHO_MISSING if answered_at is None else Reason.UNREACHABLE


def _answer(gate: Gate, channel: Channel | None, reason: Reason, **facts: Any) -> GateResult:
    verdict = Verdict.PASS if reason is Reason.OK else Verdict.FAIL
    return GateResult(gate=gate, channel=channel, verdict=verdict, reason=reason, facts=facts)


def _wait(gate: Gate, channel: Channel, reason: Reason, **facts: Any) -> GateResult:
    return GateResult(gate=gate, channel=channel, verdict=Verdict.WAIT, reason=reason, facts=facts)
