"""The shapes of all answers, for the OpenAPI document. Answers are not validated against them at run time."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from contracts.words import DeliveryRoute, EffectiveMode, FallbackMode, Gate, Reason, State, Verdict

Instant: TypeAlias = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Mode: TypeAlias = Literal["live", "bg", "inbox", "webhook", "auto"]
ChannelWord: TypeAlias = Literal["live", "bg", "webhook", "inbox"]
Level: TypeAlias = Literal["token", "token+nonce"]


class View(BaseModel):
    """The base: later versions may add fields."""

    model_config = ConfigDict(extra="allow")


class Addressee(View):
    agent_id: str
    slug: str
    owner: str


class SenderView(View):
    owner: str
    agent_id: str | None
    key_id: str


class GateView(View):
    gate: Gate
    channel: ChannelWord | None
    verdict: Verdict
    reason: Reason
    facts: dict[str, Any]


class ClaimView(View):
    label: str
    level: Level
    claimed_at: Instant


class LeaseNumberView(View):
    number: int
    expires_at: Instant


class LeaseView(LeaseNumberView):
    holder: str
    leased_at: Instant


class OutcomeView(View):
    success: bool
    result: Any
    error: str | None
    metadata: dict[str, Any]
    executed_via: str | None
    route: DeliveryRoute | None
    route_reason: str | None
    recorded_at: Instant | None


class WaitedView(View):
    stage: Literal["claimed", "outcome"] = Field(alias="for")
    reached: bool
    waited_s: float


class ListedMessage(View):
    """A message as lists show it."""

    id: str
    execution_id: str
    to: Addressee
    sender: SenderView = Field(alias="from")
    subject: str | None
    message: str
    metadata: dict[str, Any]
    delivery_mode: Mode
    live_fallback_mode: FallbackMode
    effective_delivery_mode: EffectiveMode | None
    delivery_route: DeliveryRoute | None
    state: State
    reason: Reason
    terminal: bool
    accepted_at: Instant
    expires_at: Instant
    updated_at: Instant
    ended_at: Instant | None
    deadline_at: Instant | None
    claim: ClaimView | None
    lease: LeaseView | None
    attempts: int
    max_attempts: int
    last_error: str | None
    outcome: OutcomeView | None


class MessageView(ListedMessage):
    """A message: what was asked, which way it went and why, where it stands."""

    trace: list[GateView]
    replayed: bool = False
    waited: WaitedView | None = None


class EventView(View):
    seq: int
    at: Instant
    by: str
    type: str


class ExecutionView(MessageView):
    """A message with its full history."""

    events: list[EventView]


class StepView(View):
    channel: ChannelWord
    mode: EffectiveMode


class RouteView(View):
    """Where a message would go now."""

    to: Addressee
    delivery_mode: Mode
    live_fallback_mode: FallbackMode
    effective_delivery_mode: EffectiveMode | None
    state: State
    reason: Reason
    plan: list[StepView]
    trace: list[GateView]


class InboxPage(View):
    """A page of messages; with `count_only` just `count`."""

    messages: list[ListedMessage] = []
    next_cursor: str | None = None
    count: int = 0


class ExecutionPage(View):
    executions: list[ListedMessage]
    next_cursor: str | None


class ClaimableView(View):
    execution_id: str
    message_id: str
    agent_id: str
    channel: Literal["bg", "live"]
    nonce: str | None
    claim_before: Instant | None


class ClaimablePage(View):
    executions: list[ClaimableView]


class LiveClaimedView(View):
    claimed: bool
    execution_id: str
    message_id: str
    level: Level
    claimed_at: Instant
    outcome_before: Instant | None
    message: MessageView


class LeasedView(View):
    """A lease won, or `claimed` false and nothing else."""

    claimed: bool
    execution_id: str = ""
    message_id: str = ""
    lease: LeaseNumberView | None = None
    attempt: int = 0
    max_attempts: int = 0
    message: MessageView | None = None


class ExtendedView(View):
    lease: LeaseNumberView


class ProfileView(View):
    display_name: str | None
    specialization: str | None
    tools: list[str]
    work_style: Literal["sync", "async"] | None


class SessionView(View):
    id: str
    label: str
    task_name: str
    is_default: bool
    attached: bool
    attached_at: Instant
    detached_at: Instant | None
    attestation: Level
    monitor_version: str | None
    last_seen_at: Instant | None
    heartbeat_age_sec: int | None
    token_fingerprint: str


class SessionWithToken(SessionView):
    session_token: str


class SessionPage(View):
    live_sessions: list[SessionView]


class AgentView(View):
    id: str
    slug: str
    owner: str
    address: str
    delivery_capabilities: list[ChannelWord]
    preferred_contact: ChannelWord | None
    heartbeat_age_sec: int
    claim_window_s: int
    attestation: Level
    webhook_url: str | None
    status: Literal["active", "inactive"]
    metadata: dict[str, Any]
    profile: ProfileView
    created_at: Instant
    updated_at: Instant
    live_sessions: list[SessionView]


class AgentWithSecret(AgentView):
    """An agent; `webhook_secret` is there once, when a webhook URL is first set."""

    webhook_secret: str = ""


class AgentPage(View):
    agents: list[AgentView]
    next_cursor: str | None


class SeenView(View):
    seen: list[str]


class PrincipalView(View):
    owner: str
    key_id: str
    admin: bool


class KeyView(PrincipalView):
    name: str
    created_at: Instant


class KeyWithText(KeyView):
    key: str


class KeyPage(View):
    keys: list[KeyView]


class HealthView(View):
    status: Literal["ok"]


class ReadyView(View):
    status: Literal["ready", "unavailable"]
    parts: dict[str, str]


class ProblemFacts(View):
    """The error; what follows `status` is there where it helps."""

    code: str
    message: str
    status: int
    field: str = ""
    reason: str = ""
    offset: int = 0
    trace: list[GateView] = []
    retry_after_s: float = 1.0
    request_id: str = ""


class Problem(View):
    """Problem details (RFC 9457) with the extension `error`."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    error: ProblemFacts
