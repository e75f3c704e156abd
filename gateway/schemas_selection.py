"""A selector as clients write it, and the shapes of what is answered to a message that went to whoever fits."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, WithJsonSchema
from pydantic_core import to_json

from contracts.ids import OWNER
from gateway.schemas import Body, OneLine, refuse
from gateway.schemas_conversation import PeerMessageView
from gateway.schemas_views import Addressee, RouteView, View
from router.selectors import KEYS, MAX_DEPTH, MAX_TERMS, MAX_VALUES, PATH_BEGINS, path_of

MAX_WHERE_BYTES: Final = 2_048
EXAMPLE: Final[dict[str, JsonValue]] = {
    "where": {"capabilities.model": "claude-3-5-haiku", "kind": "llm"},
    "pick": "one",
}
_SCALAR: Final[list[dict[str, JsonValue]]] = [{"type": name} for name in ("string", "number", "boolean", "null")]
_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": MAX_TERMS,
    "propertyNames": {
        "pattern": rf"^({'|'.join(KEYS)}|capabilities(\.[^.]+){{1,{MAX_DEPTH}}})$",
    },
    "additionalProperties": {
        "anyOf": [*_SCALAR, {"type": "array", "minItems": 1, "maxItems": MAX_VALUES, "items": {"anyOf": _SCALAR}}]
    },
}


def checked_where(where: dict[str, Any]) -> dict[str, Any]:
    """Refuse what no selector can be made of; the size bounds what every chosen message keeps of it."""
    for key, value in where.items():
        if key not in KEYS and path_of(key) is None:
            refuse("unknown_term", f"A term is one of {', '.join(KEYS)}, or {PATH_BEGINS}<path>, {MAX_DEPTH} deep.")
        for each in _values(value):
            if not (each is None or isinstance(each, str | int | float)):
                refuse("invalid_type", "A term's value is a text, a number, true, false or null, or a list of such.")
    if len(to_json(where)) > MAX_WHERE_BYTES:
        refuse("too_long", f"A where may have {MAX_WHERE_BYTES} bytes of JSON.")
    return where


def _values(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    if not value:
        refuse("too_short", "A list of values names at least one.")
    if len(value) > MAX_VALUES:
        refuse("too_long", f"A list of values names {MAX_VALUES} at most.")
    return value


def checked_owner(project: str) -> str:
    if not OWNER.match(project):
        refuse("invalid_format", "A project is named by an owner's name.")
    return project


Where: TypeAlias = Annotated[
    dict[str, Any],
    Field(min_length=1, max_length=MAX_TERMS),
    AfterValidator(checked_where),
    WithJsonSchema(_SCHEMA),
]


class AgentSelector(Body):
    """Agents by what they are: those of a project that fit every term, and whether one of them is meant or all."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    project: Annotated[OneLine, Field(max_length=63), AfterValidator(checked_owner)] | None = Field(
        default=None, description="An owner's name; the caller's own when it is left out."
    )
    where: Where
    pick: Literal["one", "all"] = "one"


class SelectionView(View):
    """What was asked, how many agents were looked at, how many of them fitted, and how many could be reached."""

    project: str
    where: dict[str, Any]
    pick: Literal["one", "all"]
    considered: int
    matched: int
    reachable: int
    truncated: bool = False


class SendFailure(View):
    """An agent that fitted and got no message, and why; `error` is what a message of its own would have been told."""

    to: Addressee
    error: dict[str, Any]


class MessagesSent(View):
    """What became of a message to all who fit. `selection` is null where the same request was answered before."""

    selection: SelectionView | None
    messages: list[PeerMessageView]
    failures: list[SendFailure]
    replayed: bool = False
    body_received: str | None = None
    body_received_sha256: str | None = None


class RoutesView(View):
    """Where a message to all who fit would go now."""

    selection: SelectionView
    routes: list[RouteView]
