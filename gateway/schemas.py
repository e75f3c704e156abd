"""What the schemas of all bodies share: the strict base, checked strings, and the refusals a validation turns into."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NoReturn, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import ErrorDetails, PydanticCustomError, to_json

from contracts.errors import Invalid

MAX_METADATA_BYTES: Final = 10_240
MAX_SUBJECT: Final = 255
MAX_URL: Final = 2_048
MAX_TEXT: Final = 131_072
RESERVED_METADATA_PREFIXES: Final = ("_", "nats", "x-router", "x-postroom")
# The server's word (design, decision 8): refused by name, so that a sender learns that it is not merely misspelt.
SERVER_FIELDS: Final = frozenset(
    {
        *("id", "message_id", "execution_id", "agent_id", "from", "sender", "owner", "key_id", "hop", "hops"),
        *("accepted_at", "created_at", "updated_at", "ended_at", "expires_at", "deadline_at", "deleted_at"),
        *("state", "reason", "terminal", "trace", "effective_delivery_mode", "delivery_route", "attempts"),
        *(
            "claim",
            "relation",
            "chain",
            "thread_id",
            "priority_downgraded",
            "delivery_state",
            "replayed",
            "fingerprint",
            "address",
            "live_sessions",
            "webhook_secret",
            "attached",
        ),
        *("attached_at", "detached_at", "last_seen_at", "token_fingerprint"),
    }
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


class Body(BaseModel):
    """The base of every request body: no unknown field, no silent conversion, and no echo of what was sent."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


def refuse(code: str, message: str) -> NoReturn:
    """Refuse a value from inside a validator, with a code of ours."""
    raise PydanticCustomError(code, "{message}", {"message": message})


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        refuse("control_character", "Control characters and line breaks are not allowed here.")
    return text


def _something(text: str) -> str:
    if not text or text.isspace():
        refuse("required", "This may not be empty.")
    return text


def checked_metadata(value: dict[str, Any]) -> dict[str, Any]:
    if value:
        if any(key.lower().startswith(RESERVED_METADATA_PREFIXES) for key in value):
            refuse("reserved_key", "A key of the metadata begins with a reserved prefix.")
        if len(to_json(value)) > MAX_METADATA_BYTES:
            refuse("metadata_too_large", f"The metadata may have {MAX_METADATA_BYTES} bytes of JSON.")
    return value


def without_repeats(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        refuse("duplicate_item", "A value is listed twice.")
    return values


def renamed(aliases: Mapping[str, str]) -> BeforeValidator:
    """Read other spellings of a word as the word."""
    return BeforeValidator(lambda value: aliases.get(value, value) if isinstance(value, str) else value)


OneLine: TypeAlias = Annotated[str, AfterValidator(_one_line)]
Something: TypeAlias = Annotated[str, AfterValidator(_something)]
Metadata: TypeAlias = Annotated[dict[str, Any], AfterValidator(checked_metadata)]
Name: TypeAlias = Annotated[OneLine, Field(min_length=1, max_length=64)]
Reference: TypeAlias = Annotated[
    str,
    Field(description="An agent: `agent_…`, `slug@owner` or `slug`.", examples=["cue-mac-app", "cue-mac-app@max"]),
]
ChannelWord: TypeAlias = Literal["live", "bg", "webhook", "inbox"]
AttestationWord: TypeAlias = Literal["token", "token+nonce"]


_CODES: Final[Mapping[str, str]] = {
    "missing": "required",
    "literal_error": "invalid_enum",
    "enum": "invalid_enum",
    "greater_than_equal": "out_of_range",
    "less_than_equal": "out_of_range",
    "greater_than": "out_of_range",
    "less_than": "out_of_range",
    "string_too_short": "too_short",
    "string_too_long": "too_long",
    "too_short": "too_short",
    "too_long": "too_long",
    "string_pattern_mismatch": "invalid_format",
    "int_parsing": "invalid_type",
    "float_parsing": "invalid_type",
    "finite_number": "out_of_range",
    "bool_parsing": "invalid_type",
    "int_from_float": "invalid_type",
    "int_parsing_size": "out_of_range",
}


# Fields of CueAPI's hosted service: to take them and do nothing would be worse than to refuse them.
_ELSEWHERE: Final[Mapping[str, str]] = {
    "parent_agent_id": "There are no agents beside agents: one agent takes live and bg, see delivery_capabilities.",
    "notify": "A message has one receiver: send the others a message of their own.",
}
# Where another status than 422 is what clients of this code know.
_STATUSES: Final[Mapping[str, int]] = {"metadata_too_large": 400}


def as_refusal(details: ErrorDetails) -> Invalid:
    """One pydantic error as ours: its code, a sentence, and the field it is about. The value sent is never in it."""
    place = [str(part) for part in details["loc"]]
    field = ".".join(place)
    facts: dict[str, Any] = {"field": field} if all(_PLAIN_NAME.match(part) for part in place) and field else {}
    if details["type"] == "extra_forbidden":
        return _unknown(place[-1], facts)
    code = _code(details["type"])
    return Invalid(code, _sentence(details["msg"]), status=_STATUSES.get(code), **facts)


def _code(kind: str) -> str:
    if kind.endswith("_type"):
        return "invalid_type"
    # What is not in the table is a code of our own validators.
    return _CODES.get(kind, kind)


def _unknown(name: str, facts: dict[str, Any]) -> Invalid:
    if name in SERVER_FIELDS:
        return Invalid("server_field", "This field is the server's to write.", **facts)
    return Invalid("unknown_field", _ELSEWHERE.get(name, "There is no such field."), **facts)


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
