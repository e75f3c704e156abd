"""The bodies that change agents, live sessions and hosts' beats."""

from dataclasses import replace
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import to_json

from contracts.errors import Invalid
from contracts.records import Profile
from contracts.words import Channel, WorkStyle
from gateway.schemas import (
    MAX_METADATA_BYTES,
    MAX_URL,
    AttestationWord,
    Body,
    ChannelWord,
    Metadata,
    Name,
    OneLine,
    Reference,
    refuse,
    without_repeats,
)
from gateway.wake import read_wake

SLUG_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
ECHO_PATTERN = r"^echo_[0-7][0-9a-hjkmnp-tv-z]{25}$"
MAX_AGE_S = 86_400


def _routing_word(value: object) -> object:
    if value in ("sync", "async"):
        refuse("invalid_enum", "preferred_contact is a channel here; how an agent works is profile.work_style.")
    return value


def _work_style_word(value: object) -> object:
    if value in ("live", "bg", "webhook", "inbox"):
        refuse("invalid_enum", "The profile says sync or async; the channel is the agent's preferred_contact.")
    return value


def _with_wake(metadata: dict[str, Any]) -> dict[str, Any]:
    try:
        read_wake(metadata.get("wake"))
    except Invalid as error:
        refuse(error.code, error.message)
    return metadata


def _not_too_large(value: dict[str, Any]) -> dict[str, Any]:
    if value and len(to_json(value)) > MAX_METADATA_BYTES:
        refuse("object_too_large", f"This object may have {MAX_METADATA_BYTES} bytes of JSON.")
    return value


WorkStyleWord: TypeAlias = Annotated[Literal["sync", "async"], BeforeValidator(_work_style_word)]
PreferredContact: TypeAlias = Annotated[ChannelWord, BeforeValidator(_routing_word)]
Capabilities: TypeAlias = Annotated[
    list[ChannelWord], Field(min_length=1, max_length=4), AfterValidator(without_repeats)
]
AgentMetadata: TypeAlias = Annotated[
    Metadata, AfterValidator(_with_wake), Field(description="`wake` in it says how often the agent is woken.")
]
Slug: TypeAlias = Annotated[str, Field(pattern=SLUG_PATTERN, max_length=63, examples=["cue-mac-app"])]
HeartbeatAge: TypeAlias = Annotated[int, Field(ge=10, le=3_600)]
ClaimWindow: TypeAlias = Annotated[int, Field(ge=1, le=600)]
Url: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_URL)]
Token: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{26,80}$")]
Label: TypeAlias = Annotated[Name, Field(pattern=r"^[^/\\?#%\s](?:[^/\\?#%]*[^/\\?#%\s])?$", examples=["main"])]
BeatAge: TypeAlias = Annotated[float, Field(ge=0, le=MAX_AGE_S, allow_inf_nan=False)]


StatedWord: TypeAlias = Literal["online", "away", "offline"]
Kind: TypeAlias = Annotated[Name, Field(examples=["llm"])]
Description: TypeAlias = Annotated[str, Field(max_length=2_000)]
FreeMap: TypeAlias = Annotated[dict[str, Any], AfterValidator(_not_too_large)]
DisplayName: TypeAlias = Annotated[OneLine, Field(min_length=1, max_length=255)]


class ProfileBody(Body):
    """What an agent says of itself."""

    display_name: Annotated[OneLine, Field(max_length=255)] | None = None
    specialization: Annotated[OneLine, Field(max_length=1_000)] | None = None
    tools: Annotated[list[Name], Field(max_length=100)] = Field(default_factory=list)
    work_style: WorkStyleWord | None = None
    preferred_contact: WorkStyleWord | None = Field(default=None, description="Read as `work_style`.")

    def profile(self) -> Profile:
        """The same in the words of the records."""
        style = self.work_style or self.preferred_contact
        return Profile(
            display_name=self.display_name,
            specialization=self.specialization,
            tools=tuple(self.tools),
            work_style=WorkStyle(style) if style else None,
        )


class NewAgent(Body):
    """An agent to register."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"slug": "cue-mac-app", "delivery_capabilities": ["live", "bg"], "preferred_contact": "live"}]
        }
    )

    slug: Slug | None = Field(default=None, description="Made from the display name when absent.")
    display_name: DisplayName | None = Field(default=None, description="Read as `profile.display_name`.")
    owner: Slug | None = Field(default=None, description="Another owner than one's own: with an admin key only.")
    delivery_capabilities: Capabilities | None = Field(
        default=None, description='Without them `["inbox"]`, and `webhook` too where there is a webhook_url.'
    )
    preferred_contact: PreferredContact | None = None
    heartbeat_age_sec: HeartbeatAge = 120
    claim_window_s: ClaimWindow = 30
    attestation: AttestationWord = "token"
    webhook_url: Url | None = None
    status: Literal["active", "inactive"] = "active"
    external_addressable: bool = Field(
        default=False, description="Whether owners with a grant may send to it (`POST /v1/grants`)."
    )
    metadata: AgentMetadata = Field(default_factory=dict)
    profile: ProfileBody = Field(default_factory=ProfileBody)
    service_account_id: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="The service account that backs it, for life."
    )
    description: Description | None = None
    kind: Kind | None = None
    capabilities: FreeMap = Field(default_factory=dict, description="What it is selected by; says nothing of channels.")
    config: FreeMap = Field(default_factory=dict, description="Kept and shown as it is.")

    @model_validator(mode="after")
    def has_a_name(self) -> "NewAgent":
        if self.slug is None and not self.named.display_name:
            refuse("required", "Send a slug, or a display_name to make one from.")
        return self

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Whoever names a webhook and no capabilities, as CueAPI's clients do, means to be posted to."""
        if self.delivery_capabilities is not None:
            return tuple(map(Channel, self.delivery_capabilities))
        return (Channel.INBOX,) if self.webhook_url is None else (Channel.WEBHOOK, Channel.INBOX)

    @property
    def named(self) -> Profile:
        """The profile, with the display name wherever it was sent."""
        profile = self.profile.profile()
        return replace(profile, display_name=self.display_name) if self.display_name else profile


class AgentChange(Body):
    """What to change of an agent; what is absent stays. Null clears what is a text, a channel or a URL.

    `metadata`, `profile`, `capabilities` and `config` are replaced whole.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"heartbeat_age_sec": 300}]})

    slug: Slug = ""
    display_name: DisplayName | None = Field(default=None, description="Changes `profile.display_name` alone.")
    delivery_capabilities: Capabilities = Field(default_factory=list)
    preferred_contact: PreferredContact | None = None
    heartbeat_age_sec: HeartbeatAge = 120
    claim_window_s: ClaimWindow = 30
    attestation: AttestationWord = "token"
    webhook_url: Url | None = None
    status: Literal["active", "inactive"] | StatedWord = Field(
        default="active", description="`online`, `away` and `offline` are read as `stated_presence`."
    )
    stated_presence: StatedWord | None = Field(default=None, description="Shown, and nothing is routed by it.")
    external_addressable: bool = False
    metadata: AgentMetadata = Field(default_factory=dict)
    profile: ProfileBody = Field(default_factory=ProfileBody)
    description: Description | None = None
    kind: Kind | None = None
    capabilities: FreeMap = Field(default_factory=dict)
    config: FreeMap = Field(default_factory=dict)


class Attach(Body):
    """A live session to attach."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"label": "main", "attestation": "token+nonce"}]})

    label: Label
    task_name: Annotated[OneLine, Field(min_length=1, max_length=255)] | None = None
    session_token: Token | None = Field(default=None, description="Minted by the server when absent.")
    attestation: AttestationWord | None = None
    is_default: bool = False
    monitor_version: Name | None = None
    cue_id: Annotated[OneLine, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="CueAPI's name for the session; kept and shown, and nothing more."
    )
    echoes: bool = Field(default=False, description="Answers the echoes asked on the subject of its pushes.")
    monitor_id: Slug | None = Field(
        default=None, description="The monitor that beats for it over the broker; the answer then holds `beat_proof`."
    )


class SessionChange(Body):
    """Make a session the default, or give it another token."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"is_default": True}]})

    is_default: Literal[True] | None = None
    session_token: Token | None = None


class SessionBeat(Body):
    """A session's sign of life, `age_s` old."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"age_s": 0}]})

    age_s: BeatAge = 0.0
    monitor_version: Name | None = None


class HostBeat(Body):
    """A monitor's sign of life for the agents whose background work it runs, and for the way to its sessions."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"host_id": "build-host-1", "agents": ["builder"]}]})

    host_id: Name
    agents: Annotated[list[Reference], Field(max_length=1_000)]
    echoes: Annotated[list[Reference], Field(max_length=1_000)] = Field(
        default_factory=list, description="Agents whose sessions here answer echoes: their pushes' way is tried."
    )
    monitor_version: Name | None = None
    age_s: BeatAge = 0.0


class EchoHeard(Body):
    """An echo that arrived along the way of pushes; without `echo_id`, the wish to be asked one now."""

    agent_id: Reference
    echo_id: Annotated[str, Field(pattern=ECHO_PATTERN)] | None = None


class EchoesHeard(Body):
    """What a monitor has to say of its agents' echoes, all of it in one call."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"echoes": [{"agent_id": "builder", "echo_id": "echo_01k5z3w8p2c4d6f8h0j2m4n6q8"}]}]
        }
    )

    echoes: Annotated[list[EchoHeard], Field(min_length=1, max_length=1_000)]


class EchoWanted(Body):
    """How long to wait for the answer of an echo that is asked now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"timeout_s": 5}]})

    timeout_s: Annotated[float, Field(ge=0.1, le=30, allow_inf_nan=False)] = 5.0
