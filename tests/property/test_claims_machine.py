"""Several actors on stale copies of one message: whatever they try, one wins, and the ledger shows it.

Each actor reads the message at some time, and later decides on what it read and appends with the sequence it read.
The ledger is the list below: it takes an event if its last sequence is still the expected one, and nothing else.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contracts.errors import Conflict, Stale
from contracts.events import (
    Accepted,
    Claimed,
    Ended,
    Event,
    FellBack,
    History,
    Leased,
    LeaseExtended,
    Offered,
    OutcomeRecorded,
    Released,
    Replayed,
    Stored,
)
from contracts.records import Claim, Decision, Outcome, SessionFact
from contracts.words import AttestationLevel, Channel, DeliveryRoute, Reason, State
from router.attestation import Attested, Proof, attest, push_nonce
from router.audit import audit
from router.deadlines import Failure, failed_attempt, on_deadline
from router.execution import Execution, apply, fold
from router.fencing import check_leasable, check_lease, leased
from router.reports import Report, judge
from tests.builders import (
    BG,
    FALLBACK,
    FRESH,
    LIVE,
    NOW,
    OUTCOME_S,
    ULID,
    WINDOW_S,
    accepted,
    again,
    agent,
    decision,
    ended,
    question,
    reachable,
    released,
    replayed,
    scheduled,
    session,
)

SECRET: Final = b"installation"
DICE: Final = 0.5
LEASE_S: Final = 60
ACTORS: Final = ("ada", "bob", "cleo", "dan")
FOR_EVER: Final = timedelta(days=3_650)
RECIPIENT: Final = agent(LIVE, BG)
TOKENS: Final = {"main": "m" * 26, "desk": "d" * 26, "nobody": "x" * 26}
SESSIONS: Final = (
    session("main", token=TOKENS["main"]),
    session("desk", token=TOKENS["desk"], attestation=AttestationLevel.TOKEN_NONCE),
)

actors = st.sampled_from(ACTORS)
# Which lease a worker names: mostly the last one it knows of, sometimes one too old or one that never was.
drifts = st.sampled_from([0, 0, 0, -1, 1])
pauses_s = st.sampled_from([0.0, 0.5, 2.0, WINDOW_S - 1, WINDOW_S + 1, LEASE_S + 1, OUTCOME_S + 1])
plans = st.sampled_from([decision(BG), decision(LIVE, FALLBACK)]) | st.sampled_from(
    [decision(LIVE), decision(LIVE, LIVE), decision(LIVE, LIVE, waits=True), decision(BG)]
)


class Claims(RuleBasedStateMachine):
    """One message, its ledger subject, and four actors who each believe what they read last."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.ledger: list[Stored] = []
        self.copies: dict[str, History] = {}

    @initialize(plan=plans, ttl_s=st.sampled_from([20, 3_600, 86_400]), send_s=st.sampled_from([None, None, 2, 60]))
    def accept(self, plan: Decision, ttl_s: int, send_s: int | None) -> None:
        first = accepted(plan, ttl_s=ttl_s) if send_s is None else scheduled(send_s, ttl_s=ttl_s)
        self.ledger.append(Stored(seq=1, event=first))
        self.copies = dict.fromkeys(ACTORS, self.truth)

    def belief(self, actor: str, looks: bool) -> Execution:
        """Where an actor thinks the message stands; it may look again first."""
        if looks:
            self.read(actor)
        return fold(self.copies[actor])

    @property
    def truth(self) -> History:
        return History(ulid=ULID, events=tuple(self.ledger))

    # --- what actors do ---------------------------------------------------------------------------------------------

    @rule(actor=actors)
    def read(self, actor: str) -> None:
        self.copies[actor] = self.truth

    @rule(pause_s=pauses_s)
    def let_time_pass(self, pause_s: float) -> None:
        self.now += timedelta(seconds=pause_s)

    @rule(actor=actors, plan=plans)
    def route_scheduled(self, actor: str, plan: Decision) -> None:
        standing = fold(self.copies[actor])
        if standing.state is State.SCHEDULED and standing.due_at is not None and self.now >= standing.due_at:
            self.append(actor, released(plan, self.elapsed_s))

    @rule(actor=actors, looks=st.booleans(), plan=plans, ttl_s=st.sampled_from([20, 3_600]))
    def replay(self, actor: str, looks: bool, plan: Decision, ttl_s: int) -> None:
        standing = self.belief(actor, looks)
        if not standing.is_open:
            self.append(actor, replayed(plan, self.elapsed_s, number=standing.number + 1, ttl_s=ttl_s))

    @rule(actor=actors, looks=st.booleans(), label=st.sampled_from(sorted(TOKENS)), shows_nonce=st.booleans())
    def claim(self, actor: str, looks: bool, label: str, shows_nonce: bool) -> None:
        standing = self.belief(actor, looks)
        before = standing.claim_before
        expected = push_nonce(SECRET, f"exec_{standing.number}", before) if before else None
        verdict = attest(
            Proof(session_token=TOKENS[label], nonce=expected if shows_nonce else None),
            standing,
            agent=RECIPIENT,
            sessions=SESSIONS,
            reach=reachable(*(self.beating(each.id, each.label) for each in SESSIONS)),
            expected_nonce=expected,
            now=self.now,
        )
        assert label != "nobody" or not isinstance(verdict, Attested)
        if isinstance(verdict, Attested) and not verdict.repeated:
            self.append(actor, self.claimed(verdict, standing.number))

    @rule(actor=actors)
    def apply_deadline(self, actor: str) -> None:
        event = on_deadline(fold(self.copies[actor]), question(RECIPIENT, FRESH), self.now, DICE, actor)
        if event is not None:
            self.append(actor, event)

    @rule(actor=actors, looks=st.booleans())
    def offer_again(self, actor: str, looks: bool) -> None:
        standing = self.belief(actor, looks)
        if standing.state is State.WAITING and self.now <= standing.expires_at:
            closes = self.now + timedelta(seconds=WINDOW_S)
            offer = Offered(at=self.now, by=actor, execution=standing.number, claim_before=closes)
            self.append(actor, offer)

    @rule(actor=actors, second_thoughts=st.integers(0, 5))
    def cancel(self, actor: str, second_thoughts: int) -> None:
        standing = fold(self.copies[actor])
        if not second_thoughts and standing.is_open and standing.state not in (State.CLAIMED, State.LEASED):
            cancelled = ended(State.CANCELLED, Reason.CANCELLED_BY_SENDER, self.elapsed_s)
            self.append(actor, *again(cancelled, number=standing.number))

    @rule(actor=actors, looks=st.booleans())
    def lease(self, actor: str, looks: bool) -> None:
        standing = self.belief(actor, looks)
        if allowed(lambda: check_leasable(standing, Channel.BG, self.now)):
            self.append(actor, leased(standing, actor, LEASE_S, self.now, actor))

    @rule(actor=actors, looks=st.booleans(), drift=drifts)
    def extend(self, actor: str, looks: bool, drift: int) -> None:
        standing = self.belief(actor, looks)
        number = standing.leases + drift
        if allowed(lambda: check_lease(standing, number)):
            expires_at = self.now + timedelta(seconds=LEASE_S)
            extended = LeaseExtended(
                at=self.now, by=actor, execution=standing.number, number=number, expires_at=expires_at
            )
            if self.append(actor, extended):
                assert fold(self.truth).due_at == expires_at

    @rule(actor=actors, looks=st.booleans(), drift=drifts)
    def release(self, actor: str, looks: bool, drift: int) -> None:
        standing = self.belief(actor, looks)
        number = standing.leases + drift
        if allowed(lambda: check_lease(standing, number)):
            failure = Failure(reason=Reason.ATTEMPT_FAILED)
            if self.append(actor, failed_attempt(standing, failure, self.now, DICE, actor)):
                assert standing.lease is not None
                assert standing.lease.number == number

    @rule(actor=actors, via=st.sampled_from([None, "live", "bg"]), drift=st.none() | drifts)
    def report(self, actor: str, via: str | None, drift: int | None) -> None:
        standing, before = fold(self.copies[actor]), fold(self.truth)
        number = None if drift is None else standing.leases + drift
        verdict = judge(Report(success=True, executed_via=via, lease=number), standing, self.now)
        if not isinstance(verdict, Outcome) or verdict is standing.outcome:
            return
        recorded = OutcomeRecorded(at=self.now, by=actor, execution=standing.number, outcome=verdict)
        if self.append(actor, recorded):
            check_report(verdict, number, before)

    @rule(actor=actors, then=actors)
    def two_act_on_the_same_copy(self, actor: str, then: str) -> None:
        """A claim and a fallback meet: both read before either wrote."""
        self.read(actor)
        self.read(then)
        self.claim(actor, looks=False, label="main", shows_nonce=True)
        self.apply_deadline(then)

    # --- how they do it ---------------------------------------------------------------------------------------------

    def append(self, actor: str, event: Event) -> bool:
        """Compare and set. What an actor decided is lawful by its own copy; whether it counts is decided here."""
        copy = self.copies[actor]
        apply(fold(copy), event)
        try:
            self.ledger_append(event, copy.head_seq)
        except Stale:
            return False
        self.copies[actor] = self.truth
        return True

    def ledger_append(self, event: Event, expected_seq: int) -> None:
        if self.ledger[-1].seq != expected_seq:
            raise Stale("message", expected_seq)
        self.ledger.append(Stored(seq=expected_seq + 1, event=event))

    @property
    def elapsed_s(self) -> float:
        return (self.now - NOW).total_seconds()

    def claimed(self, verdict: Attested, number: int) -> Claimed:
        won = Claim(
            session_id=verdict.session.id,
            label=verdict.session.label,
            level=verdict.level,
            key_id="key_max",
            claimed_at=self.now,
        )
        before = self.now + timedelta(seconds=OUTCOME_S)
        return Claimed(at=self.now, by="key", execution=number, claim=won, outcome_before=before)

    def beating(self, session_id: str, label: str) -> SessionFact:
        return SessionFact(id=session_id, label=label, is_default=False, last_seen_at=self.now)

    # --- what must hold ---------------------------------------------------------------------------------------------

    def executions(self) -> list[list[Event]]:
        """The events of each execution, in order."""
        found: list[list[Event]] = []
        for each in self.ledger:
            if isinstance(each.event, Accepted | Replayed):
                found.append([])
            found[-1].append(each.event)
        return found

    @invariant()
    def at_most_one_claim_of_an_execution_was_ever_won(self) -> None:
        for events in self.executions():
            assert sum(isinstance(event, Claimed) for event in events) <= 1

    @invariant()
    def executions_are_numbered_without_gaps_and_keep_their_events_together(self) -> None:
        for number, events in enumerate(self.executions(), start=1):
            assert {event.execution for event in events} == {number}

    @invariant()
    def a_claim_lies_within_its_window_and_excludes_the_fallback(self) -> None:
        for events in self.executions():
            check_claims(events)

    @invariant()
    def at_most_one_lease_is_valid_and_numbers_grow(self) -> None:
        last, standing = 0, None
        for stored in self.ledger:
            event = stored.event
            if isinstance(event, Replayed):
                last = 0
            elif isinstance(event, Leased):
                assert standing is not None
                assert standing.lease is None
                assert event.lease.number > last
                last = event.lease.number
            standing = begin_or_apply(standing, event)

    @invariant()
    def an_execution_has_at_most_one_end_and_only_a_replay_follows_it(self) -> None:
        *earlier, newest = [
            [isinstance(event, Ended | OutcomeRecorded) for event in events] for events in self.executions()
        ]
        assert all(sum(ends) == 1 and ends[-1] for ends in earlier)
        assert not any(newest[:-1])

    @invariant()
    def a_scheduled_message_is_released_once_and_not_before_its_time(self) -> None:
        releases = [each.event for each in self.ledger if isinstance(each.event, Released)]
        send_at = self.truth.message.wish.send_at
        assert len(releases) <= 1
        assert not releases or (send_at is not None and releases[0].at >= send_at)

    @invariant()
    def an_open_message_has_a_deadline(self) -> None:
        if self.ledger:
            standing = fold(self.truth)
            assert (standing.due_at is not None) == standing.is_open

    @invariant()
    def the_audit_is_clean(self) -> None:
        if self.ledger:
            assert audit([self.truth], self.now, grace=FOR_EVER).findings == ()

    def teardown(self) -> None:
        """Left alone, every message ends."""
        for _ in range(200):
            if not self.ledger or not fold(self.truth).is_open:
                return
            due_at = fold(self.truth).due_at
            assert due_at is not None
            self.now = max(self.now, due_at) + timedelta(seconds=1)
            self.read("ada")
            self.apply_deadline("ada")
            self.route_scheduled("ada", decision(LIVE))
        raise AssertionError("the message never ended")


def check_claims(events: list[Event]) -> None:
    """After a fallback to bg nobody claims; after a claim nothing falls back."""
    closes: datetime | None = None
    fell, won = False, False
    for event in events:
        if isinstance(event, Accepted | Released | Replayed | Offered):
            closes = event.claim_before
        elif isinstance(event, FellBack):
            assert not won
            fell = fell or event.step.channel is not LIVE
            closes = None
        elif isinstance(event, Claimed):
            assert not fell
            assert closes is not None
            assert event.at <= closes
            won = True


def check_report(stored: Outcome, number: int | None, before: Execution) -> None:
    """What an outcome that counted owes to the state it met."""
    if before.state is State.LEASED:
        assert before.lease is not None
        assert number == before.lease.number
    if stored.route is DeliveryRoute.LIVE:
        assert before.claim is not None
    if stored.executed_via == "live" and before.claim is None:
        assert stored.route is DeliveryRoute.LIVE_UNVERIFIED
        assert stored.route_reason == "no_live_claim"


def begin_or_apply(standing: Execution | None, event: Event) -> Execution:
    if standing is None:
        return fold(History(ulid=ULID, events=(Stored(seq=1, event=event),)))
    return apply(standing, event)


def allowed(check: Callable[[], None]) -> bool:
    try:
        check()
    except Conflict:
        return False
    return True


Claims.TestCase.settings = settings(max_examples=250, stateful_step_count=40)
TestClaims = Claims.TestCase
