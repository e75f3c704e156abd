"""What the property tests draw from: agents, wishes, facts of every kind, and lawful lives of a message."""

from datetime import timedelta
from typing import Final

from hypothesis import strategies as st

from contracts.events import Accepted, Event
from contracts.records import Agent, Decision, Reachability, SessionFact, Wish
from contracts.words import AgentStatus, Channel, FallbackMode, Reason, State
from router.decision import decide
from router.execution import TABLE, Execution, apply, begin
from router.gates import Question
from tests.builders import (
    AGENT_ID,
    BG,
    NOW,
    OWNER,
    accepted,
    again,
    attempt_failed,
    claimed,
    decision,
    discarded,
    ended,
    evidence_added,
    extended,
    fell_back,
    in_context,
    leased,
    marked,
    offered,
    outcome_recorded,
    released,
    replayed,
    scheduled,
    verification_changed,
)

LONGEST_LIFE: Final = 16
TO_BG: Final = decision(BG)

instants = st.one_of(
    st.integers(-200, 200).map(lambda seconds: NOW - timedelta(seconds=seconds)),
    st.floats(118, 122, allow_nan=False).map(lambda seconds: NOW - timedelta(seconds=seconds)),
)
sessions = st.builds(
    SessionFact,
    id=st.sampled_from(["sess_a", "sess_b"]),
    label=st.sampled_from(["main", "desk"]),
    is_default=st.booleans(),
    last_seen_at=st.none() | instants,
)
reachabilities = st.builds(
    Reachability,
    sessions=st.lists(sessions, max_size=3).map(tuple),
    host_last_seen_at=st.none() | instants,
    known=st.booleans(),
)
agents = st.builds(
    Agent,
    id=st.just(AGENT_ID),
    owner=st.just(OWNER),
    slug=st.just("receiver"),
    created_at=st.just(NOW),
    updated_at=st.just(NOW),
    delivery_capabilities=st.lists(st.sampled_from(Channel), unique=True).map(tuple),
    preferred_contact=st.none() | st.sampled_from(Channel),
    heartbeat_age_sec=st.sampled_from([10, 120, 3_600]),
    status=st.sampled_from([*[AgentStatus.ACTIVE] * 4, AgentStatus.INACTIVE]),
    webhook_url=st.none() | st.just("https://receiver.example/hook"),
    webhook_disabled_at=st.none() | st.just(NOW),
)
wishes = st.builds(Wish, channel=st.none() | st.sampled_from(Channel), fallback=st.sampled_from(FallbackMode))
questions = st.builds(Question, recipient=agents, reach=reachabilities, now=st.just(NOW))
routed_decisions = st.builds(decide, wishes, questions).filter(lambda each: each.ending is not State.REJECTED)


@st.composite
def beginnings(draw: st.DrawFn) -> Accepted:
    """An acceptance as the router makes it: scheduled, or with a decision that was not rejected."""
    ttl_s = draw(st.integers(1, 86_400))
    if draw(st.integers(0, 4)) == 0:
        return scheduled(draw(st.integers(1, 3_600)), ttl_s=ttl_s)
    return accepted(draw(routed_decisions), ttl_s=ttl_s)


def next_events(execution: Execution, at_s: int, decided: Decision = TO_BG) -> list[Event]:
    """One event of each kind the table allows here, with contents that fit the execution.

    `decided` is what a router would decide now. A release is never earlier than its time.
    """
    due_s = (execution.release_at - NOW).total_seconds() if execution.release_at else at_s
    fitting: list[Event] = [
        released(decided, max(at_s, due_s)),
        evidence_added(at_s=at_s),
        verification_changed(at_s=at_s),
        offered(at_s),
        claimed(at_s),
        leased(execution.leases + 1, at_s),
        extended(execution.leases, at_s),
        attempt_failed(execution.leases, at_s),
        marked(State.INBOX_READ, at_s),
        outcome_recorded(at_s=at_s),
        ended(State.CANCELLED, Reason.CANCELLED_BY_SENDER, at_s),
        ended(State.EXPIRED, Reason.TTL_PASSED, at_s),
        discarded(at_s),
    ]
    if execution.in_context_at is None:
        fitting.append(in_context(execution.lease.number if execution.lease else None, at_s))
    if execution.plan:
        fitting.append(fell_back(execution.plan[0], at_s))
    fitting = [*again(*fitting, number=execution.number), replayed(decided, at_s, number=execution.number + 1)]
    return [event for event in fitting if event.type in TABLE[execution.state]]


@st.composite
def lives(draw: st.DrawFn) -> tuple[Event, ...]:
    """A lawful life of one message, replays and what is said of its outcomes included, told to some point of it."""
    first = draw(beginnings())
    events: list[Event] = [first]
    execution = begin(first)
    for at_s in range(1, draw(st.integers(1, LONGEST_LIFE))):
        if not execution.is_open and draw(st.booleans()):
            break
        event = draw(st.sampled_from(next_events(execution, at_s, draw(routed_decisions))))
        events.append(event)
        execution = apply(execution, event)
    return tuple(events)


any_event = st.sampled_from(
    [
        accepted(),
        offered(),
        claimed(),
        fell_back(),
        leased(),
        leased(2),
        extended(),
        extended(2),
        attempt_failed(),
        attempt_failed(2),
        marked(),
        marked(State.INBOX_READ),
        outcome_recorded(),
        ended(),
        released(),
        replayed(),
        replayed(number=3),
        evidence_added(),
        verification_changed(),
        in_context(),
        in_context(1),
        discarded(),
    ]
)
