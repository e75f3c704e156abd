"""The values programs pass around: frozen, made once at a door, changed by `replace`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from contracts.words import (
    AccountStatus,
    AgentStatus,
    AttestationLevel,
    Channel,
    DeliveryRoute,
    EffectiveMode,
    FallbackMode,
    Gate,
    OutcomeState,
    Reason,
    Scope,
    State,
    StatedPresence,
    Verdict,
    VerificationMode,
    WorkStyle,
)

JsonObject = dict[str, Any]
LIVE_TRANSPORT: Final = "live"


# --- who -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is calling, by the server's word: the owner a key speaks for. `admin` keys speak for every owner.

    `scopes` None: whatever the owner may. `agent_id` is set on a key that is bound to one agent and acts as nobody
    else; `service_account_id` on one of a service account, which may serve the agents it backs without any scope.
    `expires_at`: when what they call with ends, if it does.
    """

    owner: str
    key_id: str
    admin: bool = False
    scopes: frozenset[Scope] | None = None
    agent_id: str | None = None
    service_account_id: str | None = None
    expires_at: datetime | None = None

    @property
    def is_confined(self) -> bool:
        """What it may do depends on which agent it is done to."""
        return self.agent_id is not None or self.service_account_id is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One API key as stored: the secret itself is never kept, only its SHA-256 (hex).

    `scopes`, `agent_id` and `service_account_id`: see `Principal`. From `expires_at` on the key does not count.
    """

    key_id: str
    owner: str
    secret_sha256: str
    created_at: datetime
    name: str = ""
    admin: bool = False
    revoked_at: datetime | None = None
    expires_at: datetime | None = None
    scopes: tuple[Scope, ...] | None = None
    agent_id: str | None = None
    service_account_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """Whose keys a worker calls with. It backs any number of agents, and each of them for the agent's whole life."""

    id: str
    owner: str
    name: str
    created_at: datetime
    updated_at: datetime
    display_name: str | None = None
    description: str | None = None
    status: AccountStatus = AccountStatus.ACTIVE
    owner_user_id: str | None = None
    metadata: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What an agent says of itself. Metadata for people and senders; no gate reads it."""

    display_name: str | None = None
    specialization: str | None = None
    tools: tuple[str, ...] = ()
    work_style: WorkStyle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An addressable receiver. `id` stays, `slug` may be renamed, `owner` never changes.

    `cue_id` is set on the hidden agent behind a cue: it has no name, and nobody but its cue sends to it.
    `service_account_id` never changes. `kind` and `capabilities` are what the agent is selected by, `config` is its
    owner's own business; `capabilities` says nothing of channels, those are `delivery_capabilities`.
    """

    id: str
    owner: str
    slug: str
    created_at: datetime
    updated_at: datetime
    delivery_capabilities: tuple[Channel, ...] = (Channel.INBOX,)
    preferred_contact: Channel | None = None
    heartbeat_age_sec: int = 120
    claim_window_s: int = 30
    attestation: AttestationLevel = AttestationLevel.TOKEN
    status: AgentStatus = AgentStatus.ACTIVE
    stated_presence: StatedPresence | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = None
    webhook_disabled_at: datetime | None = None
    webhook_disabled_reason: str | None = None
    webhook_failing_since: datetime | None = None
    webhook_old_secret: str | None = None
    webhook_old_until: datetime | None = None
    webhook_max_in_flight: int = 4
    webhook_per_s: float | None = None
    external_addressable: bool = False
    metadata: JsonObject = field(default_factory=dict)
    profile: Profile = Profile()
    deleted_at: datetime | None = None
    cue_id: str | None = None
    service_account_id: str | None = None
    description: str | None = None
    kind: str | None = None
    capabilities: JsonObject = field(default_factory=dict)
    config: JsonObject = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{self.slug}@{self.owner}"

    def webhook_secrets(self, now: datetime) -> tuple[str, ...]:
        """What signs at `now`: the secret, and during a rotation the one before it."""
        secrets = [self.webhook_secret]
        if self.webhook_old_until is not None and now < self.webhook_old_until:
            secrets.append(self.webhook_old_secret)
        return tuple(each for each in secrets if each)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSession:
    """One attach of a live session. `token_sha256` (hex) is all that is kept of its token.

    A session is detached for good: a new attach with the same label is a new session with a new id. `echoes` says
    that whoever attached it answers the echoes asked along the way of its pushes. `transport` is `live` for a session
    that pushes go to; any other word is its registrant's. After `overdue_s` seconds without a beat a session is
    overdue, after `terminal_s` it is stale for good; None: as its agent says, and as the installation does.
    `stale_at` is when somebody noted that. `monitor_id` names the monitor whose broker connection it lives with.
    """

    id: str
    label: str
    task_name: str
    token_sha256: str
    attached_at: datetime
    is_default: bool = False
    attestation: AttestationLevel = AttestationLevel.TOKEN
    monitor_version: str | None = None
    detached_at: datetime | None = None
    cue_id: str | None = None
    echoes: bool = False
    transport: str = LIVE_TRANSPORT
    metadata: JsonObject = field(default_factory=dict)
    overdue_s: int | None = None
    terminal_s: int | None = None
    stale_at: datetime | None = None
    monitor_id: str | None = None

    @property
    def is_attached(self) -> bool:
        return self.detached_at is None and self.stale_at is None

    @property
    def is_live(self) -> bool:
        """Whether pushes go to it."""
        return self.transport == LIVE_TRANSPORT

    @property
    def token_fingerprint(self) -> str:
        """Enough of the hash to recognise a token by, and nothing to reconstruct it from."""
        return self.token_sha256[:12]


# --- what is asked -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sent a message, written by the server. `agent_id` is one of the owner's own agents, when it named one.

    `agent_slug` is that agent's slug when the message was sent: it may have been renamed since.
    """

    owner: str
    key_id: str
    agent_id: str | None = None
    agent_slug: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How the sender wants a message delivered, and when. `channel` None means `auto`."""

    channel: Channel | None = None
    fallback: FallbackMode = FallbackMode.BACKGROUND
    claim_window_s: int | None = None
    ttl_s: int | None = None
    send_at: datetime | None = None
    verification: VerificationMode = VerificationMode.NONE

    @property
    def delivery_mode(self) -> str:
        return self.channel.value if self.channel else "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a message belongs to: its thread, what it answers, and the messages that led to it.

    `priority` is 1 (low) to 5 (high) as it counts, `priority_downgraded` says that the sender asked for more. `hop` is
    how many messages led to this one and `chain` the agents that sent them, oldest first: the server's words.
    """

    thread_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    expects_reply: bool = False
    reply_to_agent: str | None = None
    priority: int = 3
    priority_downgraded: bool = False
    hop: int = 0
    chain: tuple[str, ...] = ()
    is_auto_reply: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a sender asked to be delivered.

    `fingerprint` is the SHA-256 (hex) of everything a retry must repeat.
    """

    id: str
    sender: Sender
    agent_id: str
    agent_owner: str
    agent_slug: str
    body: str
    subject: str | None
    metadata: JsonObject
    wish: Wish
    accepted_at: datetime
    expires_at: datetime
    fingerprint: str
    idempotent: bool = False
    context: Context = Context()

    @property
    def thread(self) -> str:
        """The id of the thread's first message; a message that answers nothing is its own thread."""
        return self.context.thread_id or self.id


# --- what is decided -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """One gate's answer with the facts it saw. `channel` None: the agent as a whole. The trace is a tuple of these."""

    gate: Gate
    channel: Channel | None
    verdict: Verdict
    reason: Reason
    facts: Mapping[str, Any] = field(default_factory=dict)


Trace = tuple[GateResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFact:
    """What the router knows of one attached session when it decides. `is_gone`: its process is known to be gone."""

    id: str
    label: str
    is_default: bool
    last_seen_at: datetime | None
    echoes: bool = False
    is_gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reachability:
    """What is known of an agent's channels at one instant.

    `known` is False when the freshness store did not answer: then every heartbeat counts as unknown, which no gate
    takes for fresh. `echo_asked_at` is when the first echo was asked that has not been answered since, or the last one
    that was; `echo_answered_at` when one was answered last.
    """

    sessions: tuple[SessionFact, ...] = ()
    host_last_seen_at: datetime | None = None
    known: bool = True
    echo_asked_at: datetime | None = None
    echo_answered_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One channel of a plan and the name the sender reads when it is used."""

    channel: Channel
    mode: EffectiveMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The router's answer: the first step, what follows when a live offer is not claimed, and every gate's answer.

    `ending` is set when there is nothing to do but to say why: then `steps` is empty.
    `waits` is set when the first step is live and no session is there yet (`live_only`).
    """

    steps: tuple[Step, ...]
    trace: Trace
    ending: State | None = None
    reason: Reason = Reason.OK
    waits: bool = False


# --- what has happened ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A live session's exclusive right to an execution."""

    session_id: str
    label: str
    level: AttestationLevel
    key_id: str
    claimed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A worker's exclusive right to an execution until `expires_at`. `number` grows with every lease: the fence.

    `fenced` False: the worker knows no numbers, so an outcome without one counts as that of this lease.
    """

    number: int
    holder: str
    leased_at: datetime
    expires_at: datetime
    fenced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookAnswer:
    """What a receiver did with one POST. `status` None: it did not answer, and `error`, a stable code, says why.

    `response` is the beginning of what it said: 4 KiB at most, with everything unprintable escaped.
    """

    status: int | None
    latency_ms: int
    error: str | None = None
    response: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it, as first recorded.

    `executed_via` is the reporter's word, `route` ours; `route_reason` says why they differ.
    """

    success: bool
    result: Any = None
    error: str | None = None
    metadata: JsonObject = field(default_factory=dict)
    executed_via: str | None = None
    route: DeliveryRoute | None = None
    route_reason: str | None = None
    evidence: JsonObject = field(default_factory=dict)
    state: OutcomeState | None = None


# --- what travels to a monitor -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A push: enough to claim with, nothing to act on. The content comes with the claim, over HTTPS.

    `nonce` is set on live pushes only; it proves receipt of this very push. Instants are UTC.
    """

    v: int = 1
    channel: Channel
    agent_id: str
    execution_id: str
    message_id: str
    sent_at: datetime
    nonce: str | None = None
    claim_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """A question along the very way pushes take: whoever hears it says so over HTTPS."""

    v: int = 1
    kind: Literal["echo"] = "echo"
    agent_id: str
    echo_id: str
