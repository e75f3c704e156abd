"""The shapes of all answers, for the OpenAPI document. Answers are not validated against them at run time."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from contracts.words import (
    DeliveryRoute,
    EffectiveMode,
    FallbackMode,
    Gate,
    OutcomeState,
    Reason,
    Scope,
    State,
    Verdict,
    VerificationMode,
)

Instant: TypeAlias = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Mode: TypeAlias = Literal["live", "bg", "inbox", "webhook", "auto"]
ChannelWord: TypeAlias = Literal["live", "bg", "webhook", "inbox"]
PresenceWord: TypeAlias = Literal["online", "away", "offline"]
SessionsPresence: TypeAlias = Annotated[
    Literal["online", "stale", "offline"], Field(description="What the sessions of all transports make of it.")
]
Level: TypeAlias = Literal["token", "token+nonce"]


class View(BaseModel):
    """The base: later versions may add fields."""

    model_config = ConfigDict(extra="allow")


class Addressee(View):
    agent_id: str
    slug: str
    owner: str


class SenderView(View):
    """`slug`: the agent's when the message was sent; null without an agent."""

    owner: str
    agent_id: str | None
    slug: str | None
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
    state: OutcomeState | None
    evidence: dict[str, Any]


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
    thread_id: str | None
    reply_to: str | None
    correlation_id: str | None
    expects_reply: bool
    reply_to_agent: str | None
    priority: int
    priority_downgraded: bool
    auto_reply: bool
    hop: int
    chain: list[str]
    send_at: Instant | None
    verification: VerificationMode
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
    in_context_at: Instant | None
    attempts: int
    max_attempts: int
    retry_at: Instant | None
    last_error: str | None
    outcome: OutcomeView | None
    discarded: dict[Literal["reason", "by", "at"], str] | None = None


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
    status: Literal["connected", "stale", "disconnected"]
    attached_at: Instant
    detached_at: Instant | None
    attestation: Level
    monitor_version: str | None
    last_seen_at: Instant | None
    heartbeat_age_sec: int | None
    token_fingerprint: str
    echoes: bool
    cue_id: str | None


class SessionWithToken(SessionView):
    """`beat_proof`: what its monitor beats with over the broker; null for a session attached without one."""

    session_token: str
    beat_proof: str | None


class SessionPage(View):
    live_sessions: list[SessionView]


class RosterEntry(View):
    """One agent. `preferred_contact` says whether it can be talked to at once, `preferred_channel` which way."""

    name: str
    slug: str
    id: str
    address: str
    display_name: str
    description: str | None
    online: bool
    derived_status: PresenceWord
    status: PresenceWord
    bucketed_seen: str
    last_seen_relative: str
    preferred_contact: Literal["sync", "async"]
    preferred_channel: ChannelWord | None
    capabilities: list[ChannelWord]
    tools: list[str]


class RosterView(View):
    """`generated_at`: when the roster first read like this. `truncated`: there are more agents than it names."""

    generated_at: Instant
    etag: str
    agents: list[RosterEntry]
    truncated: bool


class SessionPresence(View):
    label: str
    session_id: str
    cue_id: str | None
    task_name: str
    is_default: bool
    fresh: bool
    last_seen_at: Instant | None
    heartbeat_age_sec: int | None


class HostPresence(View):
    last_seen_at: Instant | None
    heartbeat_age_sec: int | None


class PushPathView(View):
    """`reachable` is null where nobody who echoes is there to be asked."""

    reachable: bool | None
    reason: Reason
    asked_at: Instant | None
    answered_at: Instant | None


class PresenceView(View):
    """Whether an agent is there: by its sessions, its host, and the way pushes take."""

    agent_id: str
    slug: str
    address: str
    online: bool
    derived_status: PresenceWord
    presence: SessionsPresence
    bucketed_seen: str
    last_seen_relative: str
    last_seen_at: Instant | None
    default_live: SessionPresence | None
    labeled_sessions: list[SessionPresence]
    host: HostPresence
    push_path: PushPathView
    etag: str


class ServiceView(View):
    """What this is, and where the rest is described."""

    name: str
    version: str
    description: str
    links: dict[str, str]


class SeenView(View):
    seen: list[str]


class EchoView(View):
    """`asked`: an echo is on its way. `counted`: the answer came in time."""

    agent_id: str
    asked: bool
    counted: bool


class EchoesView(View):
    echoes: list[EchoView]


class EchoTrialView(View):
    """`round_trip_ms`: from asking until the answer was seen, or null. `echoing`: attached sessions that can answer."""

    agent_id: str
    reached: bool
    round_trip_ms: float | None
    timeout_s: float
    echoing: int


class PrincipalView(View):
    """`scopes` null: no limits. `agent_id`: it acts as this agent alone; `service_account_id`: whose key it is."""

    owner: str
    key_id: str
    admin: bool
    scopes: list[Scope] | None
    agent_id: str | None
    service_account_id: str | None


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
    considered: int = 0
    matched: int = 0
    reachable: int = 0
    limit: int = 0
    agents: int = 0
    keys: int = 0
    scope: Scope | None = None
    scopes: list[Scope] = []
    session_status: str = ""


class Problem(View):
    """Problem details (RFC 9457) with the extension `error`."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    error: ProblemFacts
