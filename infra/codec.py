"""Bytes to values and back: events, directory records and pushes as JSON, validated on the way in.

Readers ignore fields they do not know. Defaults are written out: what a record says must not change with a later
program's defaults.
"""

from typing import Annotated, Any, TypeVar

from pydantic import Discriminator, TypeAdapter, ValidationError

from contracts.directory import DirectoryRecord
from contracts.errors import PostroomError
from contracts.events import Event
from contracts.records import Echo, Envelope

T = TypeVar("T")
R = TypeVar("R", bound=DirectoryRecord)


class Undecodable(PostroomError):
    """Stored bytes are not the record they should be: damaged, or written by a program we do not understand."""

    def __init__(self, record: str, reason: str) -> None:
        super().__init__("undecodable_record", f"{record} cannot be read: {reason}", record=record)
        self.record = record


_EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Discriminator("type")])
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}
_ENVELOPES: TypeAdapter[Envelope] = TypeAdapter(Envelope)
_ECHOES: TypeAdapter[Echo] = TypeAdapter(Echo)


def encode_event(event: Event) -> bytes:
    return _adapter(type(event)).dump_json(event)


def decode_event(payload: bytes, *, record: str = "event") -> Event:
    """Raises `Undecodable` naming `record`."""
    return _decode(_EVENTS, payload, record)


def encode_record(record: DirectoryRecord) -> bytes:
    return _adapter(type(record)).dump_json(record)


def decode_record(kind: type[R], payload: bytes, *, record: str = "directory record") -> R:
    """Raises `Undecodable` naming `record`."""
    return _decode(_adapter(kind), payload, record)


def encode_envelope(envelope: Envelope) -> bytes:
    return _ENVELOPES.dump_json(envelope)


def decode_envelope(payload: bytes, *, record: str = "envelope") -> Envelope:
    """Raises `Undecodable` naming `record`."""
    return _decode(_ENVELOPES, payload, record)


def encode_echo(echo: Echo) -> bytes:
    return _ECHOES.dump_json(echo)


def decode_echo(payload: bytes, *, record: str = "echo") -> Echo:
    """Raises `Undecodable` naming `record`."""
    return _decode(_ECHOES, payload, record)


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    # One adapter per class: writing through the union would try its members in turn.
    adapter = _ADAPTERS.get(kind)
    if adapter is None:
        adapter = _ADAPTERS[kind] = TypeAdapter(kind)
    return adapter


def _decode(adapter: TypeAdapter[T], payload: bytes, record: str) -> T:
    try:
        return adapter.validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Undecodable(record, f"{where or 'the whole'}: {first['msg']}") from error
