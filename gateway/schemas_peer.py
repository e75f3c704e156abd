"""The shapes of answers that CueAPI's clients read as well: executions, claims and what outcomes are worth."""

from typing import Any, Literal, TypeAlias

from contracts.words import OutcomeState
from gateway.schemas_views import (
    EventView,
    Instant,
    LeaseNumberView,
    Level,
    ListedMessage,
    MessageView,
    View,
)

Status: TypeAlias = Literal[
    "pending", "delivering", "success", "failed", "retrying", "retry_ready", "missed", "pending_outcome",
    "outcome_timeout",
]  # fmt: skip
Trigger: TypeAlias = Literal["message", "scheduled", "manual_fire", "replay"]


class ListedExecution(ListedMessage):
    """An execution as lists show it; `id` is the message's, which stands for its newest execution in any path."""

    message_id: str
    cue_id: str | None
    task: str | None
    payload: dict[str, Any]
    scheduled_for: Instant
    status: Status
    http_status: int | None
    error_message: str | None
    started_at: Instant | None
    claimed_at: Instant | None
    last_attempt_at: Instant | None
    delivered_at: Instant | None
    outcome_state: OutcomeState | None
    triggered_by: Trigger
    claimed_by: str | None
    live_claimed_at: Instant | None
    created_at: Instant


class ExecutionView(ListedExecution, MessageView):
    """An execution with the full history of its message."""

    events: list[EventView]


class ExecutionPage(View):
    """`total` is null where no index knows it."""

    executions: list[ListedExecution]
    next_cursor: str | None
    total: int | None
    limit: int
    offset: int
    has_more: bool


class ClaimableView(View):
    """Enough to claim with; `payload` is `metadata.payload`, or the message as an object."""

    execution_id: str
    message_id: str
    agent_id: str
    channel: Literal["bg", "live"]
    nonce: str | None
    claim_before: Instant | None
    cue_id: str
    cue_name: str
    task: str | None
    payload: dict[str, Any]
    scheduled_for: Instant
    attempt: int


class ClaimablePage(View):
    executions: list[ClaimableView]


class LiveClaimedView(View):
    claimed: bool
    attested: bool
    execution_id: str
    message_id: str
    level: Level
    claimed_at: Instant
    live_claimed_at: Instant
    outcome_before: Instant | None
    message: MessageView


class LeasedView(View):
    """A lease won, or `claimed` false and nothing else."""

    claimed: bool
    execution_id: str = ""
    message_id: str = ""
    lease: LeaseNumberView | None = None
    lease_seconds: int = 0
    attempt: int = 0
    max_attempts: int = 0
    message: MessageView | None = None


class ExtendedView(View):
    lease: LeaseNumberView
    execution_id: str
    lease_extended_until: Instant
    acknowledged: bool


class InContextView(View):
    """`in_context_at`: when it was said first, for this claim or lease."""

    execution_id: str
    in_context_at: Instant
    message: MessageView


class ReportedView(MessageView):
    outcome_recorded: bool
    outcome_state: OutcomeState | None


class PendingView(View):
    """What an outcome is worth now."""

    execution_id: str
    outcome_state: OutcomeState
    message: MessageView


class EvidenceView(PendingView):
    evidence_updated: bool


class VerifiedView(PendingView):
    valid: bool
    reason: str | None


class ReplayView(View):
    """The new execution; `id` is its id, as CueAPI's clients expect it here."""

    id: str
    execution_id: str
    message_id: str
    cue_id: str | None
    scheduled_for: Instant
    status: Status
    triggered_by: Trigger
    replayed_from: str
    message: MessageView
