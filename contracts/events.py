"""The ledger's events: what can happen to a message, as stored on its subject, in order.

Each event carries `at`, the server's clock when it was decided, and `by`, who caused it (`key:<id>`, `router`,
`monitor:<id>` …). Readers ignore fields they do not know, so an older program can read a newer one's ledger.

`execution` says which execution of the message an event belongs to (1 is the first; a redrive starts the next).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from contracts.errors import IllegalEvent
from contracts.records import Claim, Decision, JsonObject, Lease, Message, Outcome, Step, Trace, WebhookAnswer
from contracts.words import OutcomeState, Reason, State


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    at: datetime
    by: str
    execution: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(_Event):
    """A sender's message with the decision taken for it. `claim_before` is set when it was offered live."""

    message: Message
    decision: Decision
    claim_before: datetime | None = None
    max_attempts: int = 1
    type: Literal["accepted"] = "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Released(_Event):
    """The time of a scheduled message has come: the decision is taken now, on what is true now."""

    decision: Decision
    claim_before: datetime | None = None
    max_attempts: int = 1
    type: Literal["released"] = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed(_Event):
    """A message that had ended is delivered once more: `execution` is the number of the new one."""

    decision: Decision
    agent_id: str
    expires_at: datetime
    claim_before: datetime | None = None
    max_attempts: int = 1
    type: Literal["replayed"] = "replayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered(_Event):
    """A message that waited for a session (`live_only`) is offered to one that attached."""

    claim_before: datetime
    trace: Trace = ()
    type: Literal["offered"] = "offered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed(_Event):
    """A live session proved itself and won the offer. `outcome_before` bounds its work."""

    claim: Claim
    outcome_before: datetime
    type: Literal["claimed"] = "claimed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FellBack(_Event):
    """The claim window closed: the execution moves to the next step of its plan."""

    step: Step
    trace: Trace = ()
    max_attempts: int = 1
    type: Literal["fell_back"] = "fell_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased(_Event):
    """A worker took the execution: a host's daemon for bg, a router for a webhook."""

    lease: Lease
    type: Literal["leased"] = "leased"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseExtended(_Event):
    number: int
    expires_at: datetime
    type: Literal["lease_extended"] = "lease_extended"


@dataclass(frozen=True, slots=True, kw_only=True)
class InContext(_Event):
    """Who holds the execution says that its turn, or its program, has taken the message.

    Told once per claim and once per lease; `lease` is the lease's number, None for a claim.
    """

    lease: int | None = None
    type: Literal["in_context"] = "in_context"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed(_Event):
    """An attempt came to nothing and another follows at `retry_at`; `detail` is the worker's, capped."""

    number: int
    reason: Reason
    retry_at: datetime
    detail: str | None = None
    http_status: int | None = None
    latency_ms: int | None = None
    answer: WebhookAnswer | None = None
    type: Literal["attempt_failed"] = "attempt_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxMarked(_Event):
    """The receiver moved the message on in its inbox, short of acknowledging it."""

    state: State
    type: Literal["inbox_marked"] = "inbox_marked"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRecorded(_Event):
    """The end most senders hope for. Terminal. `lease` is the number of the lease the work was done under."""

    outcome: Outcome
    reason: Reason = Reason.OUTCOME_REPORTED
    lease: int | None = None
    answer: WebhookAnswer | None = None
    type: Literal["outcome_recorded"] = "outcome_recorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceAdded(_Event):
    """More evidence for a recorded outcome, and what the outcome is worth with it."""

    evidence: JsonObject
    outcome_state: OutcomeState
    type: Literal["evidence_added"] = "evidence_added"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationChanged(_Event):
    """Somebody verified a recorded outcome, refuted it, or asked for it to be verified."""

    outcome_state: OutcomeState
    reason: str | None = None
    type: Literal["verification_changed"] = "verification_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(_Event):
    """Any other end, with its name and reason. Terminal."""

    state: State
    reason: Reason
    detail: str | None = None
    http_status: int | None = None
    latency_ms: int | None = None
    answer: WebhookAnswer | None = None
    trace: Trace = ()
    type: Literal["ended"] = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded(_Event):
    """Somebody looked at a dead letter and wants nothing more of it; `reason` is theirs, and `by` says who."""

    reason: str
    type: Literal["discarded"] = "discarded"


Event = (
    Accepted
    | Released
    | Replayed
    | Offered
    | Claimed
    | FellBack
    | Leased
    | LeaseExtended
    | InContext
    | AttemptFailed
    | InboxMarked
    | OutcomeRecorded
    | EvidenceAdded
    | VerificationChanged
    | Ended
    | Discarded
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An event with its place in the ledger. `seq` is the stream sequence: unique and increasing over all messages."""

    seq: int
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All events of one message in order. Never empty: the first is `Accepted`."""

    ulid: str
    events: tuple[Stored, ...]

    @property
    def head_seq(self) -> int:
        return self.events[-1].seq

    @property
    def message(self) -> Message:
        first = self.events[0].event
        if not isinstance(first, Accepted):
            raise IllegalEvent("none", first.type)
        return first.message
