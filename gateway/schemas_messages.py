"""The bodies that send and ask about messages: `POST /v1/messages` and `POST /v1/route`."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    AliasChoices,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from contracts.records import Wish
from contracts.words import FALLBACK_ALIASES, Channel, FallbackMode, VerificationMode
from gateway.instants import parse_instant
from gateway.schemas import MAX_SUBJECT, Body, Metadata, OneLine, Reference, Something, refuse, renamed
from gateway.schemas_selection import EXAMPLE as SELECTOR
from gateway.schemas_selection import AgentSelector

MAX_CLAIM_WINDOW_S = 600
MAX_TTL_S = 31_536_000
USUAL_PRIORITY: Final = 3
CONTEXT_FIELDS: Final = frozenset(
    {"reply_to", "correlation_id", "expects_reply", "reply_to_agent", "priority", "auto_reply"}
)
"""The fields that place a message in a conversation."""


def _instant(value: object) -> object:
    """An RFC 3339 text as the instant; anything else is left for the field to refuse."""
    if not isinstance(value, str):
        return value
    at = parse_instant(value)
    if at is None:
        refuse("invalid_format", "Write an instant as RFC 3339, with its offset: 2026-01-31T09:00:00Z.")
    return at


def _mode_of(value: object) -> object:
    """`{"mode": …}` is read as the mode."""
    if isinstance(value, dict) and set(value) == {"mode"}:
        return value["mode"]
    return value


def _addressed(value: object) -> object:
    """A text as it is, and everything else as a selector: one answer to what is neither."""
    return value if isinstance(value, str) else AgentSelector.model_validate(value)


_MODES: Final[dict[str, Any]] = {"type": "string", "enum": [mode.value for mode in VerificationMode]}
_MODE_OBJECT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"mode": _MODES},
    "required": ["mode"],
    "additionalProperties": False,
}
Instant: TypeAlias = Annotated[
    datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})
]
VerificationWord: TypeAlias = Annotated[
    Literal["none", "require_external_id", "require_result_url", "require_artifacts", "manual"],
    BeforeValidator(_mode_of),
    WithJsonSchema({"anyOf": [_MODES, _MODE_OBJECT], "default": "none"}),
]
AddressOrSelector: TypeAlias = Annotated[
    str | AgentSelector, PlainValidator(_addressed, json_schema_input_type=Reference | AgentSelector)
]
ModeWord: TypeAlias = Literal["live", "bg", "inbox", "webhook", "auto"]
FallbackWord: TypeAlias = Annotated[
    Literal["background", "none", "live_only"],
    renamed({alias: word.value for alias, word in FALLBACK_ALIASES.items()}),
]
ClaimWindow: TypeAlias = Annotated[int, Field(ge=1, le=MAX_CLAIM_WINDOW_S)]

EXAMPLE: dict[str, JsonValue] = {
    "to": "cue-mac-app",
    "subject": "Quick question",
    "message": "Are you there?",
    "delivery_mode": "live",
    "live_fallback_mode": "background",
}


class Wished(Body):
    """How the sender wants something delivered, and to whom."""

    to: AddressOrSelector
    subject: Annotated[OneLine, Field(max_length=MAX_SUBJECT)] | None = None
    delivery_mode: ModeWord = "auto"
    live_fallback_mode: FallbackWord | None = Field(
        default=None, description="Only with `live` or `auto`; `fallback_to_background` is read as `background`."
    )
    metadata: Metadata = Field(default_factory=dict)
    claim_window_s: ClaimWindow | None = None
    ttl_s: Annotated[int, Field(ge=1, le=MAX_TTL_S)] | None = None
    send_at: Instant | None = Field(default=None, description="Not before this instant; at most 366 days ahead.")
    verification: VerificationWord = "none"
    reply_to: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="The id of the message this one answers."
    )
    correlation_id: Annotated[OneLine, Field(max_length=255)] | None = None
    expects_reply: bool = False
    reply_to_agent: Reference | None = None
    priority: Annotated[int, Field(ge=1, le=5)] = USUAL_PRIORITY
    auto_reply: bool = Field(default=False, description="A program's answer to a program: nobody asked for it.")

    @property
    def has_context(self) -> bool:
        """Whether the message belongs to something; most do not, and nothing is looked up for them."""
        return not CONTEXT_FIELDS.isdisjoint(self.model_fields_set)

    @model_validator(mode="after")
    def fallback_applies(self) -> "Wished":
        if self.live_fallback_mode is not None and self.delivery_mode not in {"live", "auto"}:
            refuse("field_not_applicable", "live_fallback_mode goes with delivery_mode live or auto only.")
        return self

    def wish(self) -> Wish:
        """The same in the words of the records."""
        fallback, mode = self.live_fallback_mode, self.verification
        return Wish(
            channel=None if self.delivery_mode == "auto" else Channel(self.delivery_mode),
            fallback=FallbackMode.BACKGROUND if fallback is None else FallbackMode(fallback),
            claim_window_s=self.claim_window_s,
            ttl_s=self.ttl_s,
            send_at=self.send_at,
            verification=VerificationMode.NONE if mode == "none" else VerificationMode(mode),
        )


class _Message(Wished):
    message: Something = Field(
        validation_alias=AliasChoices("message", "body"), description="The text; `body` is read as the same field."
    )


class NewMessage(_Message):
    """A message to deliver."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    to: Reference


class SelectedMessage(_Message):
    """A message to deliver to whoever fits: to one of them, or to each."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"to": SELECTOR, "message": "Are you there?"}]})

    to: AgentSelector


class RouteQuestion(Wished):
    """The same fields, of which the message itself is optional: nothing is stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"to": "cue-mac-app", "delivery_mode": "auto"}]})

    message: str | None = Field(default=None, validation_alias=AliasChoices("message", "body"))
