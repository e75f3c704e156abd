"""The bodies about dead letters and redrives: which are meant, how fast, why they are discarded; and the answers."""

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from contracts.redrives import RedriveState
from contracts.words import Channel, EffectiveMode, Reason, State
from gateway.schemas import Body, ChannelWord, OneLine, Reference, refuse, without_repeats
from gateway.schemas_messages import Instant as InstantAsked
from gateway.schemas_views import GateView, Instant, MessageView, View

MAX_NAMED = 1_000
MAX_RATE_PER_S = 500
USUAL_RATE_PER_S = 50
_REASONS = {"type": "string", "enum": [reason.value for reason in Reason]}


def _known(reason: str) -> str:
    if reason not in _REASONS["enum"]:
        refuse("invalid_enum", "Each reason is one a trace or an end can have.")
    return reason


StateWord: TypeAlias = Literal[
    "live_unclaimed_no_fallback",
    "live_unclaimed_stale_heartbeat",
    "live_unclaimed_no_session",
    "bg_exhausted",
    "webhook_exhausted",
    "expired_unread",
    "expired",
    "outcome_missing",
    "rejected",
    "dead_letter",
    "delivered",
]
ReasonWord: TypeAlias = Annotated[str, AfterValidator(_known), WithJsonSchema(_REASONS)]
MessageId: TypeAlias = Annotated[str, Field(pattern=r"^msg_[0-7][0-9a-hjkmnp-tv-z]{25}$")]
MAX_REASON = 500


def _reason(text: str) -> str:
    if text.isspace():
        refuse("required", "This may not be empty.")
    return text


Why: TypeAlias = Annotated[OneLine, AfterValidator(_reason), Field(min_length=1, max_length=MAX_REASON)]


class FilterBody(Body):
    """Which dead letters: all that fit everything given. `delivered`: what its receiver says that it failed at."""

    agent: Reference | None = None
    states: Annotated[list[StateWord], AfterValidator(without_repeats), Field(max_length=20)] = Field(
        default_factory=list
    )
    reasons: Annotated[list[ReasonWord], AfterValidator(without_repeats), Field(max_length=20)] = Field(
        default_factory=list
    )
    channel: ChannelWord | None = None
    since: InstantAsked | None = None
    until: InstantAsked | None = None


class Selection(Body):
    """Dead letters by what they have in common (`{}`: all of one's own), or by name."""

    filter: FilterBody | None = None
    message_ids: (
        Annotated[list[MessageId], AfterValidator(without_repeats), Field(min_length=1, max_length=MAX_NAMED)] | None
    ) = None

    @model_validator(mode="after")
    def is_one_of_both(self) -> Self:
        if (self.filter is None) == (self.message_ids is None):
            refuse("required", "Send a filter or message_ids.")
        return self


class RedriveWish(Selection):
    """A redrive, or with `dry_run` the question what one would do."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"filter": {"agent": "cue-mac-app"}, "rate_per_s": 50, "dry_run": True}]}
    )

    rate_per_s: Annotated[float, Field(ge=1, le=MAX_RATE_PER_S, allow_inf_nan=False)] = USUAL_RATE_PER_S
    dry_run: bool = False


class DiscardOne(Body):
    """Why nothing more is wanted of a dead letter."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "The customer has called."}]})

    reason: Why


class DiscardWish(Selection):
    """The same of several; up to a thousand in one call."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"filter": {"states": ["expired_unread"]}, "reason": "Too old to matter."}]}
    )

    reason: Why


class DeadLetterPage(View):
    """Newest first; each with its trace."""

    dead_letters: list[MessageView]
    next_cursor: str | None


class CountView(View):
    """`is_exact` false: there are at least so many."""

    count: int
    is_exact: bool


class DeadLetterGroup(View):
    agent_id: str
    slug: str
    state: State
    reason: Reason
    count: int


class SampleView(View):
    """What the gates say of one of them now."""

    message_id: str
    agent_id: str
    would: Literal["redrive", "refuse"]
    effective_delivery_mode: EffectiveMode | None
    state: State
    reason: Reason
    plan: list[Any]
    trace: list[GateView]


class SurveyView(View):
    """What a redrive would do. `left_out`: named messages that are no dead letters of one's own."""

    dry_run: Literal[True]
    matched: int
    matched_is_exact: bool
    left_out: int
    by: list[DeadLetterGroup]
    samples: list[SampleView]


class FilterView(View):
    agent_id: str | None
    states: list[State]
    reasons: list[Reason]
    channel: Channel | None
    since: Instant | None
    until: Instant | None


class RedriveView(View):
    """A redrive and how far it has got. `matched` was counted when it was asked for; `done` counts up to it."""

    id: str
    owner: str
    state: RedriveState
    filter: FilterView | None
    named: int | None
    rate_per_s: float
    matched: int
    matched_is_exact: bool
    done: int
    redriven: int
    moved_on: int
    refused: int
    refused_by_reason: dict[str, int]
    created_at: Instant
    created_by: str
    updated_at: Instant | None
    ended_at: Instant | None


class RedrivePage(View):
    redrives: list[RedriveView]


class DiscardedManyView(View):
    """`has_more`: more fit the filter than one call takes."""

    discarded: int
    refused: int
    refused_by_code: dict[str, int]
    has_more: bool
