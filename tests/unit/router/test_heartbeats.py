"""Heartbeats off the broker: what is noted of them, and that nothing a monitor sends can do more than be dropped."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.heartbeats import MESSAGE_MAX_BYTES, Pulse, beat_proof, render_beats
from router.heartbeats import Beats, Dropped, epoch_ms, read_beats

SECRET = b"s" * 32
NOW_MS = 1_800_000_000_000
ULID = "01kaj000000000000000000000"
OTHER = "01kaj000000000000000000001"


def message(*rows: object, **fields: object) -> bytes:
    return json.dumps({"v": 1, "s": list(rows), **fields}).encode()


def row(ulid: str = ULID, age_s: object = 0, monitor_id: str = "mac-1") -> list[object]:
    return [ulid, beat_proof(SECRET, ulid, monitor_id), age_s]


def read(payload: bytes, subject: str = "hb.mac-1") -> Beats | Dropped:
    return read_beats(subject, payload, SECRET, NOW_MS)


def test_what_a_monitor_renders_is_read_with_its_ages() -> None:
    proof = beat_proof(SECRET, f"sess_{ULID}", "mac-1")
    rendered = next(render_beats([Pulse(session_id=f"sess_{ULID}", proof=proof, age_s=2.5)]))
    assert read(rendered) == Beats(monitor_id="mac-1", part=0, seen={f"sess_{ULID}": NOW_MS - 2_500}, forged=0)


def test_a_session_without_its_proof_is_left_out_and_the_others_count() -> None:
    beats = read(message(row(), [OTHER, beat_proof(SECRET, ULID, "mac-1"), 0], row(OTHER, monitor_id="mac-2")))
    assert beats == Beats(monitor_id="mac-1", part=0, seen={f"sess_{ULID}": NOW_MS}, forged=2)


def test_a_proof_is_worth_nothing_on_another_monitors_subject() -> None:
    assert read(message(row()), "hb.mac-2") == Beats(monitor_id="mac-2", part=0, seen={}, forged=1)


def test_a_message_that_is_too_large_is_not_even_parsed() -> None:
    assert read(b" " * (MESSAGE_MAX_BYTES + 1)) is Dropped.OVERSIZED


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_another_version_is_told_apart(version: object) -> None:
    assert read(message(v=version)) is Dropped.UNKNOWN_VERSION


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"v":1}',
        b'{"v":1,"s":{}}',
        b'{"v":1,"s":"abc"}',
        b"[" * 50_000,
        b'{"v":1,"s":' + b"[" * 50_000,
        b'{"v":1,"s":[["\\ud800","\\ud800",0]]}',
        b'{"v":1,"s":[[1,"x",0]]}',
        b'{"v":1,"s":[["x",null,0]]}',
        b'{"v":1,"s":[["x","y"]]}',
        b'{"v":1,"s":[["x","y",0,0]]}',
        b'{"v":1,"s":[7]}',
        b'{"v":1,"s":[["x","y",' + b"9" * 5_000 + b"]]}",
        message(row(age_s=-1)),
        message(row(age_s=86_401)),
        message(row(age_s=True)),
        message(row(age_s="0")),
        message(row(age_s=float("nan"))),
        message(row(age_s=float("inf"))),
        message(row(), part=-1),
        message(row(), part=100),
        message(row(), part="0"),
        message(*[["x", "y", 0]] * 1_001),
    ],
)
def test_what_is_no_heartbeat_is_dropped(payload: bytes) -> None:
    assert read(payload) is Dropped.MALFORMED


@pytest.mark.parametrize("subject", ["hb.", "hb.a.b", "hb.UPPER", "hb.a b", "live.agent_x", "hb.-a"])
def test_a_subject_that_names_no_monitor_is_dropped(subject: str) -> None:
    assert read(message(row()), subject) is Dropped.MALFORMED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["v", "s", "part", "x"]), inner),
    max_leaves=12,
)


@given(payload=st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), JSON), subject=st.text())
def test_nothing_raises_and_nothing_unproved_is_seen(payload: bytes, subject: str) -> None:
    beats = read(payload, f"hb.{subject}")
    assert isinstance(beats, Dropped) or not beats.seen


@given(rows=JSON)
def test_rows_of_any_shape_do_not_raise(rows: object) -> None:
    beats = read(json.dumps({"v": 1, "s": [rows, row()]}).encode())
    assert isinstance(beats, Dropped) or len(beats.seen) <= 1


def test_instants_are_epoch_milliseconds() -> None:
    assert epoch_ms(datetime(2027, 1, 15, 8, 0, 0, 5_000, tzinfo=UTC)) == NOW_MS + 5
