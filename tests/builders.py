"""Values with good defaults, so that a test shows only what matters to it. Every instant is relative to `NOW`."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

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
from contracts.ids import encode_ulid, message_id
from contracts.records import (
    Agent,
    Claim,
    Decision,
    JsonObject,
    Lease,
    LiveSession,
    Message,
    Outcome,
    Reachability,
    Sender,
    SessionFact,
    Step,
    Wish,
)
from contracts.words import (
    AttestationLevel,
    Channel,
    DeliveryRoute,
    EffectiveMode,
    FallbackMode,
    OutcomeState,
    Reason,
    State,
)
from router.acceptance import UNDECIDED
from router.attestation import token_hash
from router.channels import ALL
from router.decision import first_state
from router.execution import Execution, fold_events
from router.gates import Question

NOW: Final = datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)
OWNER: Final = "max"
AGENT_ID: Final = "agent_receiver0000"
TOKEN: Final = "01hzt0ken000000000000000ab"
ULID: Final = encode_ulid(1)
WINDOW_S: Final = 30
LEASE_S: Final = 60
OUTCOME_S: Final = 900
TTL_S: Final = 86_400
SEND_S: Final = 3_600

LIVE, BG, WEBHOOK, INBOX = Channel.LIVE, Channel.BG, Channel.WEBHOOK, Channel.INBOX


def after(seconds: float) -> datetime:
    """`seconds` after `NOW`; before it when negative."""
    return NOW + timedelta(seconds=seconds)


# --- who -----------------------------------------------------------------------------------------------------------


def agent(*capabilities: Channel, **changes: Any) -> Agent:
    """An active agent with these channels (inbox when none are named); a webhook agent has a URL and a secret."""
    facts: dict[str, Any] = {
        "id": AGENT_ID,
        "owner": OWNER,
        "slug": "receiver",
        "created_at": after(-86_400),
        "updated_at": after(-86_400),
        "delivery_capabilities": capabilities or (INBOX,),
    }
    if WEBHOOK in capabilities:
        facts |= {"webhook_url": "https://receiver.example/hook", "webhook_secret": "whsec_c2VjcmV0"}
    return Agent(**facts | changes)


def session(label: str = "main", *, token: str = TOKEN, **changes: Any) -> LiveSession:
    """An attached session whose token is `token` and whose id is `sess_<label>`."""
    facts: dict[str, Any] = {
        "id": f"sess_{label}",
        "label": label,
        "task_name": "receiver",
        "token_sha256": token_hash(token),
        "attached_at": after(-3_600),
    }
    return LiveSession(**facts | changes)


def heard(age_s: float | None, label: str = "main", *, echoes: bool = False) -> SessionFact:
    """What is known of the session `label`: heard of `age_s` seconds ago, or never."""
    seen_at = None if age_s is None else after(-age_s)
    return SessionFact(id=f"sess_{label}", label=label, is_default=False, last_seen_at=seen_at, echoes=echoes)


def reachable(*sessions: SessionFact, host_age_s: float | None = 1, known: bool = True) -> Reachability:
    host = None if host_age_s is None else after(-host_age_s)
    return Reachability(sessions=sessions, host_last_seen_at=host, known=known)


def echoing(*, asked_s: float | None, answered_s: float | None, age_s: float = 1) -> Reachability:
    """One session that echoes; the echo was asked and answered so many seconds ago, or never."""
    return replace(
        reachable(heard(age_s, echoes=True)),
        echo_asked_at=None if asked_s is None else after(-asked_s),
        echo_answered_at=None if answered_s is None else after(-answered_s),
    )


FRESH: Final = reachable(heard(1))
STALE: Final = reachable(heard(1_000))
NO_SESSION: Final = reachable()


def question(recipient: Agent, reach: Reachability = FRESH, *, now: datetime = NOW) -> Question:
    return Question(recipient=recipient, reach=reach, now=now)


# --- what is asked and decided --------------------------------------------------------------------------------------


def wish(channel: Channel | None = None, fallback: FallbackMode = FallbackMode.BACKGROUND, **changes: Any) -> Wish:
    return Wish(channel=channel, fallback=fallback, **changes)


def message(ulid: str = ULID, **changes: Any) -> Message:
    facts: dict[str, Any] = {
        "id": message_id(ulid),
        "sender": Sender(owner="ada", key_id="key_ada"),
        "agent_id": AGENT_ID,
        "agent_owner": OWNER,
        "agent_slug": "receiver",
        "body": "Can you check the promotion workflow?",
        "subject": "Quick question",
        "metadata": {"thread": 7},
        "wish": wish(),
        "accepted_at": NOW,
        "expires_at": after(TTL_S),
        "fingerprint": "",
    }
    return Message(**facts | changes)


def step(channel: Channel, mode: EffectiveMode | None = None) -> Step:
    return Step(channel=channel, mode=mode or ALL[channel].mode)


FALLBACK: Final = step(BG, EffectiveMode.BACKGROUND_FALLBACK)


def decision(*steps: Channel | Step, **changes: Any) -> Decision:
    """A decision for these steps, in order; give `ending` for one without any."""
    plan = tuple(each if isinstance(each, Step) else step(each) for each in steps)
    return Decision(**{"steps": plan, "trace": (), **changes})


# --- what has happened ----------------------------------------------------------------------------------------------


def accepted(decided: Decision | Channel = BG, *, ulid: str = ULID, ttl_s: float = TTL_S, **changes: Any) -> Accepted:
    """A message accepted at `NOW` for one channel, or with a whole decision."""
    facts: dict[str, Any] = {
        "at": NOW,
        "by": "key:key_ada",
        "message": message(ulid, expires_at=after(ttl_s)),
        **_terms(decided, 0),
    }
    return Accepted(**facts | changes)


def scheduled(send_s: float = SEND_S, *, ttl_s: float = TTL_S, **changes: Any) -> Accepted:
    """A message accepted at `NOW`, to be routed `send_s` seconds later and to end `ttl_s` seconds after that."""
    told = message(wish=wish(send_at=after(send_s)), expires_at=after(send_s + ttl_s))
    return accepted(UNDECIDED, message=told, **changes)


def released(decided: Decision | Channel = BG, at_s: float = SEND_S + 1) -> Released:
    return Released(at=after(at_s), by="router-1", **_terms(decided, at_s))


def replayed(decided: Decision | Channel = BG, at_s: float = 9, *, number: int = 2, ttl_s: float = TTL_S) -> Replayed:
    """The beginning of execution `number`, with `ttl_s` seconds to live."""
    return Replayed(
        at=after(at_s),
        by="key:key_max",
        execution=number,
        agent_id=AGENT_ID,
        expires_at=after(at_s + ttl_s),
        **_terms(decided, at_s),
    )


def _terms(decided: Decision | Channel, at_s: float) -> dict[str, Any]:
    plan = decided if isinstance(decided, Decision) else decision(decided)
    return {
        "decision": plan,
        "claim_before": after(at_s + WINDOW_S) if first_state(plan) is State.OFFERED else None,
        "max_attempts": ALL[plan.steps[0].channel].ladder.max_attempts if plan.steps else 1,
    }


def offered(at_s: float = 1, *, window_s: float = WINDOW_S) -> Offered:
    return Offered(at=after(at_s), by="router-1", claim_before=after(at_s + window_s))


def claimed(at_s: float = 2, label: str = "main", level: AttestationLevel = AttestationLevel.TOKEN) -> Claimed:
    claim = Claim(session_id=f"sess_{label}", label=label, level=level, key_id="key_max", claimed_at=after(at_s))
    return Claimed(at=after(at_s), by="key:key_max", claim=claim, outcome_before=after(at_s + OUTCOME_S))


def fell_back(to: Step = FALLBACK, at_s: float = 31) -> FellBack:
    return FellBack(at=after(at_s), by="router-1", step=to, max_attempts=ALL[to.channel].ladder.max_attempts)


def leased(number: int = 1, at_s: float = 3, *, lease_s: float = LEASE_S) -> Leased:
    lease = Lease(number=number, holder="host-1", leased_at=after(at_s), expires_at=after(at_s + lease_s))
    return Leased(at=after(at_s), by="key:key_max", lease=lease)


def extended(number: int = 1, at_s: float = 4, *, lease_s: float = LEASE_S) -> LeaseExtended:
    return LeaseExtended(at=after(at_s), by="key:key_max", number=number, expires_at=after(at_s + lease_s))


def in_context(lease: int | None = None, at_s: float = 4) -> InContext:
    return InContext(at=after(at_s), by="key:key_max", lease=lease)


def attempt_failed(
    number: int = 1, at_s: float = 5, *, pause_s: float = 1, detail: str | None = "exit 1"
) -> AttemptFailed:
    return AttemptFailed(
        at=after(at_s),
        by="key:key_max",
        number=number,
        reason=Reason.ATTEMPT_FAILED,
        retry_at=after(at_s + pause_s),
        detail=detail,
    )


def marked(state: State = State.INBOX_DELIVERED, at_s: float = 6) -> InboxMarked:
    return InboxMarked(at=after(at_s), by="key:key_max", state=state)


def outcome(route: DeliveryRoute = DeliveryRoute.BACKGROUND_DIRECT, **changes: Any) -> Outcome:
    return Outcome(**{"success": True, "result": "done", "route": route, **changes})


def outcome_recorded(of: Outcome | DeliveryRoute = DeliveryRoute.BACKGROUND_DIRECT, at_s: float = 7) -> OutcomeRecorded:
    recorded = of if isinstance(of, Outcome) else outcome(of)
    return OutcomeRecorded(at=after(at_s), by="key:key_max", outcome=recorded)


def evidence_added(
    evidence: JsonObject | None = None,
    state: OutcomeState = OutcomeState.VERIFIED_SUCCESS,
    at_s: float = 8,
) -> EvidenceAdded:
    given = {"external_id": "pr-7"} if evidence is None else evidence
    return EvidenceAdded(at=after(at_s), by="key:key_max", evidence=given, outcome_state=state)


def verification_changed(
    state: OutcomeState = OutcomeState.VERIFIED_SUCCESS, at_s: float = 8, *, reason: str | None = None
) -> VerificationChanged:
    return VerificationChanged(at=after(at_s), by="key:key_max", outcome_state=state, reason=reason)


def ended(state: State = State.EXPIRED, reason: Reason = Reason.TTL_PASSED, at_s: float = 8) -> Ended:
    return Ended(at=after(at_s), by="router-1", state=state, reason=reason)


def discarded(at_s: float = 20, *, reason: str = "nobody waits for it") -> Discarded:
    return Discarded(at=after(at_s), by="key:key_max", reason=reason)


def again(*events: Event, number: int = 2) -> tuple[Event, ...]:
    """These events as what happened to execution `number`."""
    return tuple(replace(event, execution=number) for event in events)


def history(*events: Event, ulid: str = ULID, first_seq: int = 10) -> History:
    """These events on one subject, with gaps in their sequences: other messages' events lie between."""
    stored = tuple(Stored(seq=first_seq + 3 * index, event=event) for index, event in enumerate(events))
    return History(ulid=ulid, events=stored)


def execution(*events: Event) -> Execution:
    return fold_events(history(*events).events)


# --- one message in every state -------------------------------------------------------------------------------------

_LIVE_THEN_BG: Final = decision(LIVE, FALLBACK)
_WAITS: Final = decision(LIVE, LIVE, waits=True)

WAYS: Final[dict[State, tuple[Event, ...]]] = {
    State.SCHEDULED: (scheduled(),),
    State.WAITING: (accepted(_WAITS),),
    State.OFFERED: (accepted(_LIVE_THEN_BG),),
    State.CLAIMED: (accepted(_LIVE_THEN_BG), claimed()),
    State.QUEUED: (accepted(BG),),
    State.LEASED: (accepted(BG), leased()),
    State.IN_INBOX: (accepted(INBOX),),
    State.INBOX_DELIVERED: (accepted(INBOX), marked()),
    State.INBOX_READ: (accepted(INBOX), marked(), marked(State.INBOX_READ)),
    State.DELIVERED: (accepted(BG), leased(), outcome_recorded()),
    State.LIVE_UNCLAIMED_NO_FALLBACK: (
        accepted(LIVE),
        ended(State.LIVE_UNCLAIMED_NO_FALLBACK, Reason.CLAIM_WINDOW_CLOSED, 31),
    ),
    State.LIVE_UNCLAIMED_STALE_HEARTBEAT: (
        accepted(decision(ending=State.LIVE_UNCLAIMED_STALE_HEARTBEAT, reason=Reason.HEARTBEAT_STALE)),
    ),
    State.LIVE_UNCLAIMED_NO_SESSION: (
        accepted(decision(ending=State.LIVE_UNCLAIMED_NO_SESSION, reason=Reason.NO_SESSION_ATTACHED)),
    ),
    State.BG_EXHAUSTED: (accepted(BG), leased(), ended(State.BG_EXHAUSTED, Reason.ATTEMPTS_EXHAUSTED)),
    State.WEBHOOK_EXHAUSTED: (
        accepted(WEBHOOK),
        leased(),
        ended(State.WEBHOOK_EXHAUSTED, Reason.RECEIVER_GONE),
    ),
    State.EXPIRED_UNREAD: (accepted(INBOX), ended(State.EXPIRED_UNREAD)),
    State.EXPIRED: (accepted(BG), ended(State.EXPIRED)),
    State.CANCELLED: (accepted(BG), ended(State.CANCELLED, Reason.CANCELLED_BY_SENDER)),
    State.OUTCOME_MISSING: (
        accepted(LIVE),
        claimed(),
        ended(State.OUTCOME_MISSING, Reason.OUTCOME_DEADLINE_PASSED, 1_000),
    ),
    State.REJECTED: (accepted(decision(ending=State.REJECTED, reason=Reason.AGENT_INACTIVE)),),
    State.DEAD_LETTER: (accepted(BG), ended(State.DEAD_LETTER, Reason.ATTEMPTS_EXHAUSTED)),
    State.DISCARDED: (accepted(BG), ended(), discarded()),
}
"""For every state, the events of one message that leave it there."""


def execution_in(state: State, **changes: Any) -> Execution:
    """An execution in this state, with some of its fields changed."""
    return replace(execution(*WAYS[state]), **changes)


def seqs(histories: Iterable[History]) -> list[int]:
    """Every sequence used by these histories."""
    return [stored.seq for each in histories for stored in each.events]
