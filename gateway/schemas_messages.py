"""The bodies that send and ask about messages: `POST /v1/messages` and `POST /v1/route`."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AliasChoices, ConfigDict, Field, JsonValue, model_validator

from contracts.records import Wish
from contracts.words import FALLBACK_ALIASES, Channel, FallbackMode
from gateway.schemas import MAX_SUBJECT, Body, Metadata, OneLine, Reference, Something, refuse, renamed

MAX_CLAIM_WINDOW_S = 600
MAX_TTL_S = 31_536_000

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

    to: Reference
    subject: Annotated[OneLine, Field(max_length=MAX_SUBJECT)] | None = None
    delivery_mode: ModeWord = "auto"
    live_fallback_mode: FallbackWord | None = Field(
        default=None, description="Only with `live` or `auto`; `fallback_to_background` is read as `background`."
    )
    metadata: Metadata = Field(default_factory=dict)
    claim_window_s: ClaimWindow | None = None
    ttl_s: Annotated[int, Field(ge=1, le=MAX_TTL_S)] | None = None

    @model_validator(mode="after")
    def fallback_applies(self) -> "Wished":
        if self.live_fallback_mode is not None and self.delivery_mode not in {"live", "auto"}:
            refuse("field_not_applicable", "live_fallback_mode goes with delivery_mode live or auto only.")
        return self

    def wish(self) -> Wish:
        """The same in the words of the records."""
        fallback = self.live_fallback_mode
        return Wish(
            channel=None if self.delivery_mode == "auto" else Channel(self.delivery_mode),
            fallback=FallbackMode.BACKGROUND if fallback is None else FallbackMode(fallback),
            claim_window_s=self.claim_window_s,
            ttl_s=self.ttl_s,
        )


class NewMessage(Wished):
    """A message to deliver."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    message: Something = Field(
        validation_alias=AliasChoices("message", "body"), description="The text; `body` is read as the same field."
    )


class RouteQuestion(Wished):
    """The same fields, of which the message itself is optional: nothing is stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"to": "cue-mac-app", "delivery_mode": "auto"}]})

    message: str | None = Field(default=None, validation_alias=AliasChoices("message", "body"))
