"""The audit: do these histories keep what was promised? Pure; it reads events and believes nothing else.

    not_accepted         a history does not begin with its acceptance
    accepted_twice       it holds another one
    sequence_order       sequences do not strictly increase
    illegal_event        an event does not follow the state table
    ended_twice          an execution has a second terminal event
    execution_order      an event's execution is not the present one, or a replay's not the next
    replayed_in_flight   an execution was replayed before it had ended
    discarded_alive      a message was discarded that was no dead letter
    released_twice       a scheduled message was released a second time
    released_early       or before its time
    without_outcome      evidence or a verification was recorded for an execution without an outcome
    claimed_twice        an execution was won by more than one live claim
    live_without_claim   an outcome's route is `live`, or a session had the message in context, and nobody had claimed
    lease_order          a lease's number is not greater than the one before in its execution
    stale_lease          something was recorded under a lease that was not the present one
    without_lease        a worker's outcome was recorded while nobody held a lease
    overdue              an open message's deadline passed longer ago than the grace: it is silently stuck
    not_conserved        messages, acceptances and what is open or ended are not equally many

Each rule reads the raw events, so that a fault in the fold does not hide what the fold should have refused.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from contracts.errors import IllegalEvent
from contracts.events import (
    Accepted,
    AttemptFailed,
    Claimed,
    Discarded,
    Ended,
    Event,
    EvidenceAdded,
    History,
    InContext,
    Leased,
    LeaseExtended,
    OutcomeRecorded,
    Released,
    Replayed,
    Stored,
    VerificationChanged,
)
from contracts.words import DEAD_LETTER_STATES, OPEN_STATES, DeliveryRoute, State
from router.execution import Execution, apply, begin
from router.explain import instant

WORKERS_ROUTES: Final = frozenset(
    {DeliveryRoute.BACKGROUND_DIRECT, DeliveryRoute.BACKGROUND_FALLBACK, DeliveryRoute.WEBHOOK}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One broken promise. `ulid` names the message; it is empty for what concerns the ledger as a whole."""

    ulid: str
    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """Counts of everything read, by state, and the findings in the order in which they were met."""

    messages: int
    events: int
    accepted: int
    open: Mapping[State, int]
    ended: Mapping[State, int]
    findings: tuple[Finding, ...]

    @property
    def is_clean(self) -> bool:
        return not self.findings


Problem = tuple[str, str]
"""A code and a sentence."""


def audit(histories: Iterable[History], now: datetime, *, grace: timedelta) -> AuditReport:
    """Check every history against the rules above; `grace` is how late a deadline may be applied.

    The histories are read once, so an iterator over a whole ledger will do.
    """
    messages = events = accepted = 0
    states: Counter[State] = Counter()
    findings: list[Finding] = []
    for history in histories:
        messages += 1
        events += len(history.events)
        accepted += len(_acceptances(history))
        standing, problems = _follow(history)
        if standing is not None:
            states[standing.state] += 1
            problems += _overdue(standing, now, grace)
        problems += [problem for rule in RULES for problem in rule(history)]
        findings += [Finding(ulid=history.ulid, code=code, text=text) for code, text in problems]
    findings += _conservation(messages, accepted, states.total())
    opened, closed = _by_end(states)
    return AuditReport(
        messages=messages, events=events, accepted=accepted, open=opened, ended=closed, findings=tuple(findings)
    )


def _follow(history: History) -> tuple[Execution | None, list[Problem]]:
    """Where the events lead, passing over those the table refuses."""
    execution: Execution | None = None
    problems: list[Problem] = []
    for stored in history.events:
        event = stored.event
        if execution is None:
            execution = begin(event) if isinstance(event, Accepted) else None
            continue
        try:
            execution = apply(execution, event)
        except IllegalEvent as error:
            problems.append(("illegal_event", f"sequence {stored.seq}: {error.message}"))
    return execution, problems


def _overdue(execution: Execution, now: datetime, grace: timedelta) -> list[Problem]:
    if not execution.is_open:
        return []
    if execution.due_at is None:
        return [("overdue", f"{execution.state.value}, and nothing will ever happen")]
    if now <= execution.due_at + grace:
        return []
    return [("overdue", f"{execution.state.value}, due at {instant(execution.due_at)}")]


def _conservation(messages: int, accepted: int, standing: int) -> list[Finding]:
    if messages == accepted == standing:
        return []
    text = f"{messages} messages, {accepted} acceptances, {standing} open or ended"
    return [Finding(ulid="", code="not_conserved", text=text)]


def _by_end(states: Counter[State]) -> tuple[dict[State, int], dict[State, int]]:
    """Counts of open and of terminal states, in the order of the vocabulary."""
    found = [state for state in State if states[state]]
    opened = {state: states[state] for state in found if state in OPEN_STATES}
    return opened, {state: states[state] for state in found if state not in opened}


# --- the rules ------------------------------------------------------------------------------------------------------


def _one_acceptance(history: History) -> Iterator[Problem]:
    if not isinstance(history.events[0].event, Accepted):
        yield "not_accepted", f"begins with {history.events[0].event.type}"
    for stored in _acceptances(history)[1:]:
        yield "accepted_twice", f"sequence {stored.seq}"


def _acceptances(history: History) -> list[Stored]:
    return [each for each in history.events if isinstance(each.event, Accepted)]


def _increasing_sequences(history: History) -> Iterator[Problem]:
    seqs = [each.seq for each in history.events]
    for before, after in pairwise(seqs):
        if after <= before:
            yield "sequence_order", f"{after} follows {before}"


def _one_end(history: History) -> Iterator[Problem]:
    ends: Counter[int] = Counter()
    for stored in history.events:
        event = stored.event
        if _is_end(event):
            ends[event.execution] += 1
            if ends[event.execution] > 1:
                yield "ended_twice", f"sequence {stored.seq}: {event.type}"


def _is_end(event: Event) -> bool:
    if isinstance(event, Accepted | Released | Replayed):
        return event.decision.ending is not None
    return isinstance(event, OutcomeRecorded | Ended)


def _consecutive_executions(history: History) -> Iterator[Problem]:
    present = 1
    for stored in history.events:
        event = stored.event
        expected = present + isinstance(event, Replayed)
        if event.execution != expected:
            yield "execution_order", f"sequence {stored.seq}: {event.type} of {event.execution}, not of {expected}"
        present = expected


def _replays_follow_ends(history: History) -> Iterator[Problem]:
    has_ended = False
    for stored in history.events:
        if isinstance(stored.event, Replayed):
            if not has_ended:
                yield "replayed_in_flight", f"sequence {stored.seq}"
            has_ended = False
        has_ended = has_ended or _is_end(stored.event)


def _only_dead_letters_are_discarded(history: History) -> Iterator[Problem]:
    is_dead = False
    for stored in history.events:
        event = stored.event
        if isinstance(event, Discarded) and not is_dead:
            yield "discarded_alive", f"sequence {stored.seq}"
        if isinstance(event, Accepted | Released | Replayed):
            is_dead = event.decision.ending in DEAD_LETTER_STATES
        elif isinstance(event, Ended):
            is_dead = event.state in DEAD_LETTER_STATES
        elif isinstance(event, OutcomeRecorded | Discarded):
            is_dead = False


def _one_release_in_time(history: History) -> Iterator[Problem]:
    first = history.events[0].event
    send_at = first.message.wish.send_at if isinstance(first, Accepted) else None
    releases = [each for each in history.events if isinstance(each.event, Released)]
    for stored in releases:
        if send_at is None or stored.event.at < send_at:
            yield "released_early", f"sequence {stored.seq}: at {instant(stored.event.at)}, not {instant(send_at)}"
    for stored in releases[1:]:
        yield "released_twice", f"sequence {stored.seq}"


def _verified_means_recorded(history: History) -> Iterator[Problem]:
    recorded: set[int] = set()
    for stored in history.events:
        event = stored.event
        if isinstance(event, OutcomeRecorded):
            recorded.add(event.execution)
        elif isinstance(event, EvidenceAdded | VerificationChanged) and event.execution not in recorded:
            yield "without_outcome", f"sequence {stored.seq}: {event.type}"


def _one_claim(history: History) -> Iterator[Problem]:
    winners: dict[int, str] = {}
    for stored in history.events:
        event = stored.event
        if not isinstance(event, Claimed):
            continue
        if event.execution in winners:
            yield "claimed_twice", f"sequence {stored.seq}: {event.claim.label} after {winners[event.execution]}"
        winners.setdefault(event.execution, event.claim.label)


def _live_means_claimed(history: History) -> Iterator[Problem]:
    claimed: set[int] = set()
    for stored in history.events:
        event = stored.event
        if isinstance(event, Claimed):
            claimed.add(event.execution)
        elif _needs_a_claim(event) and event.execution not in claimed:
            yield "live_without_claim", f"sequence {stored.seq}"


def _needs_a_claim(event: Event) -> bool:
    if isinstance(event, InContext):
        return event.lease is None
    return isinstance(event, OutcomeRecorded) and event.outcome.route is DeliveryRoute.LIVE


def _fenced_leases(history: History) -> Iterator[Problem]:
    by_execution: defaultdict[int, list[Stored]] = defaultdict(list)
    for stored in history.events:
        by_execution[stored.event.execution].append(stored)
    for events in by_execution.values():
        yield from _fenced(events)


def _fenced(events: Iterable[Stored]) -> Iterator[Problem]:
    last = 0
    present: int | None = None
    for stored in events:
        event = stored.event
        if isinstance(event, Leased):
            if event.lease.number <= last:
                yield "lease_order", f"sequence {stored.seq}: lease {event.lease.number} after {last}"
            last = present = event.lease.number
        elif isinstance(event, LeaseExtended | AttemptFailed):
            if event.number != present:
                yield "stale_lease", f"sequence {stored.seq}: {event.type} under {event.number}, present is {present}"
            present = None if isinstance(event, AttemptFailed) else present
        elif isinstance(event, OutcomeRecorded) and event.outcome.route in WORKERS_ROUTES and present is None:
            yield "without_lease", f"sequence {stored.seq}: {event.outcome.route}"
        elif isinstance(event, OutcomeRecorded | InContext) and event.lease not in (None, present):
            yield "stale_lease", f"sequence {stored.seq}: {event.type} under {event.lease}, present is {present}"


RULES: Final[tuple[Callable[[History], Iterator[Problem]], ...]] = (
    _one_acceptance,
    _increasing_sequences,
    _one_end,
    _consecutive_executions,
    _replays_follow_ends,
    _only_dead_letters_are_discarded,
    _one_release_in_time,
    _verified_means_recorded,
    _one_claim,
    _live_means_claimed,
    _fenced_leases,
)
