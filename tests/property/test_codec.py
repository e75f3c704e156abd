"""What is written is what is read, for every kind of event, record and push."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.directory import DirectoryRecord, Owner
from contracts.events import Event
from contracts.records import Envelope, GateResult, Outcome
from infra.codec import (
    Undecodable,
    decode_envelope,
    decode_event,
    decode_record,
    encode_envelope,
    encode_event,
    encode_record,
)
from tests.nats_streams import accepted

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=3)
instants = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
st.register_type_strategy(datetime, instants)
st.register_type_strategy(dict, json_objects)
# No door lets any other number in.
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(GateResult, st.builds(GateResult, facts=json_objects))
st.register_type_strategy(Outcome, st.builds(Outcome, result=json_values, metadata=json_objects))


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a record class, with JSON where the class allows anything."""
    return st.from_type(kind).filter(lambda value: value is not None)


events = st.one_of(*(values_of(kind) for kind in get_args(Event)))
records = st.one_of(*(values_of(kind) for kind in get_args(DirectoryRecord)))


@given(events)
def test_an_event_reads_as_it_was_written(event: Event) -> None:
    assert decode_event(encode_event(event)) == event


@given(records)
def test_a_directory_record_reads_as_it_was_written(record: DirectoryRecord) -> None:
    assert decode_record(type(record), encode_record(record)) == record


@given(values_of(Envelope))
def test_a_push_reads_as_it_was_written(envelope: Envelope) -> None:
    assert decode_envelope(encode_envelope(envelope)) == envelope


@given(st.text(), json_objects)
def test_a_sender_s_words_survive(body: str, metadata: dict[str, Any]) -> None:
    event = accepted("u")
    event = replace(event, message=replace(event.message, body=body, metadata=metadata))
    assert decode_event(encode_event(event)) == event


def test_fields_of_a_newer_program_are_ignored() -> None:
    written = json.loads(encode_event(accepted("u")))
    written["later"] = 1
    written["message"]["later"] = {"a": 1}
    assert decode_event(json.dumps(written).encode()) == accepted("u")


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"{}", b'{"type": "unheard_of"}', b'{"type": "offered"}'])
def test_bytes_that_are_no_event_are_named(payload: bytes) -> None:
    with pytest.raises(Undecodable) as caught:
        decode_event(payload, record="led.u@7")
    assert caught.value.record == "led.u@7"
    assert caught.value.code == "undecodable_record"


def test_an_undecodable_record_does_not_repeat_its_content() -> None:
    with pytest.raises(Undecodable) as caught:
        decode_record(Owner, b'{"owner": "max", "created_at": "my secret"}')
    assert "my secret" not in str(caught.value)


def test_each_event_says_its_type() -> None:
    assert json.loads(encode_event(accepted("u")))["type"] == "accepted"
