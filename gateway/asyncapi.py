"""The AsyncAPI document: what travels over the broker, made from the records and the patterns of their subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final

from pydantic import Discriminator, TypeAdapter

from contracts.directory import DirectoryRecord
from contracts.events import Event
from contracts.heartbeats import AGE_MAX_S, PARTS, SESSIONS_PER_MESSAGE
from contracts.heartbeats import VERSION as BEATS_VERSION
from contracts.records import Echo, Envelope
from contracts.subject_patterns import PATTERNS
from contracts.tenant_events import EventType

Document = dict[str, Any]
VERSION: Final = "3.0.0"
_TEMPLATE: Final = "#/components/schemas/{model}"
_TEXT: Final[Document] = {"type": "string"}
_TOKENS: Final[Mapping[str, str]] = {
    "ulid": "The ULID a message's id ends with.",
    "agent": "The receiving agent's id.",
    "execution": "The id of the execution that is offered.",
    "echo": "The echo's id; its ULID says when it was asked.",
    "monitor": "The monitor's id.",
    "owner": "The owner whose log it is.",
    "about": "The id of the agent it is about, `_` for none.",
    "type": "The event's type: two words and a dot.",
    "key": "The record's key in the directory.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Channel:
    """What is said of one family of subjects. `action` is our programs' own: to send, or to receive."""

    message: str
    summary: str
    action: str = "send"
    accounts: str = "CORE"


_CHANNELS: Final[Mapping[str, _Channel]] = {
    "ledger": _Channel(message="LedgerEvent", summary="The life of one message, event by event; stored in LEDGER."),
    "moved": _Channel(
        message="Moved", summary="A ledger event was stored: its headers, republished.", action="receive"
    ),
    "live": _Channel(message="Envelope", summary="A message is offered to live sessions.", accounts="CORE, EDGE"),
    "echo": _Channel(message="Echo", summary="Do pushes arrive? Answered over HTTPS.", accounts="CORE, EDGE"),
    "bg": _Channel(message="Envelope", summary="Background work waits for its host.", accounts="CORE, EDGE"),
    "inbox": _Channel(message="Envelope", summary="A message is in the agent's inbox.", accounts="CORE, EDGE"),
    "webhook": _Channel(message="Envelope", summary="A webhook is being posted.", accounts="CORE, EDGE"),
    "heartbeat": _Channel(
        message="Heartbeat", summary="A monitor's sessions live.", action="receive", accounts="EDGE, CORE"
    ),
    "events": _Channel(message="TenantEvent", summary="What an owner is told, as CloudEvents; stored in EVENTS."),
    "directory_changed": _Channel(message="DirectoryKey", summary="This key of the directory changed."),
    "session_attached": _Channel(message="AgentId", summary="A live session attached to this agent."),
    "directory": _Channel(message="DirectoryRecord", summary="A record of the directory; stored in KV_DIRECTORY."),
}


@cache
def asyncapi_document(*, version: str) -> Document:
    """The whole document for this version of the product."""
    payloads, schemas = _payloads()
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "postroom on the broker",
            "version": version,
            "description": "Subjects on NATS. Monitors, in account EDGE, hear pushes and echoes and publish on one "
            "subject; everything else is between our own programs, in account CORE.",
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(name, described) for name, described in _CHANNELS.items()},
        "operations": {
            f"{described.action}_{name}": _operation(name, described) for name, described in _CHANNELS.items()
        },
        "components": {
            "messages": {name: _message(name, payload) for name, payload in payloads.items()},
            "schemas": schemas,
        },
    }


def _channel(name: str, described: _Channel) -> Document:
    pattern = PATTERNS[name]
    channel: Document = {
        "address": pattern.address,
        "summary": described.summary,
        "messages": {described.message: {"$ref": f"#/components/messages/{described.message}"}},
        "x-accounts": described.accounts,
        "x-prefixed": pattern.is_prefixed,
    }
    if pattern.tokens:
        channel["parameters"] = {token: {"description": _TOKENS[token]} for token in pattern.tokens}
    return channel


def _operation(name: str, described: _Channel) -> Document:
    return {
        "action": described.action,
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": described.summary,
        "messages": [{"$ref": f"#/channels/{name}/messages/{described.message}"}],
    }


def _message(name: str, payload: Document) -> Document:
    is_text = payload.get("type") == "string"
    return {"name": name, "contentType": "text/plain" if is_text else "application/json", "payload": payload}


def _payloads() -> tuple[dict[str, Document], Document]:
    """The payload of each message, and the schemas they refer to."""
    adapters: Sequence[tuple[str, TypeAdapter[Any]]] = (
        ("Envelope", TypeAdapter(Envelope)),
        ("Echo", TypeAdapter(Echo)),
        ("LedgerEvent", TypeAdapter(Annotated[Event, Discriminator("type")])),
        ("DirectoryRecord", TypeAdapter(DirectoryRecord)),
        ("EventType", TypeAdapter(EventType)),
    )
    inputs = [(name, "validation", adapter) for name, adapter in adapters]
    found, definitions = TypeAdapter.json_schemas(inputs, ref_template=_TEMPLATE)  # type: ignore[arg-type]
    payloads = {name: _plain(schema) for (name, _), schema in found.items() if name != "EventType"}
    payloads |= {
        "Moved": _TEXT,
        "Heartbeat": _heartbeat(),
        "DirectoryKey": _TEXT,
        "AgentId": _TEXT,
        "TenantEvent": _cloud_event(),
    }
    return payloads, {name: _plain(schema) for name, schema in definitions["$defs"].items()}


def _plain(schema: Document) -> Document:
    """Without OpenAPI's discriminator object, which AsyncAPI spells otherwise: the `const` of each type says it too."""
    return {name: value for name, value in schema.items() if name != "discriminator"}


def _heartbeat() -> Document:
    session = [
        {"type": "string", "description": "The ULID the session's id ends with."},
        {"type": "string", "description": "`beat_proof` of the answer to its attach."},
        {
            "type": "number",
            "description": "The age of its sign of life in seconds.",
            "minimum": 0,
            "maximum": AGE_MAX_S,
        },
    ]
    return {
        "type": "object",
        "required": ["v", "s"],
        "properties": {
            "v": {"const": BEATS_VERSION},
            "part": {"type": "integer", "minimum": 0, "exclusiveMaximum": PARTS, "default": 0},
            "s": {
                "type": "array",
                "maxItems": SESSIONS_PER_MESSAGE,
                "items": {"type": "array", "prefixItems": session, "minItems": 3, "maxItems": 3},
            },
        },
    }


def _cloud_event() -> Document:
    texts = ("id", "source", "subject", "time", "datacontenttype")
    return {
        "type": "object",
        "required": ["specversion", *texts, "type", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            **dict.fromkeys(texts, _TEXT),
            "type": {"$ref": _TEMPLATE.format(model="EventType")},
            "data": {"type": "object"},
        },
    }
