"""What monitors say over the broker: proofs, parts and ages."""

import json

from contracts.heartbeats import (
    MESSAGE_MAX_BYTES,
    Pulse,
    beat_proof,
    connection_name,
    is_proved,
    monitor_of_connection,
    render_beats,
)

SECRET = b"s" * 32


def pulses(n: int, age_s: float = 0.0) -> list[Pulse]:
    ulids = [f"01kaj0{number:020d}" for number in range(n)]
    return [Pulse(session_id=f"sess_{ulid}", proof=beat_proof(SECRET, ulid, "mac-1"), age_s=age_s) for ulid in ulids]


def test_a_proof_holds_for_one_session_and_one_monitor_under_one_secret() -> None:
    session = pulses(1)[0]
    ulid = session.session_id.removeprefix("sess_")
    assert len(session.proof) == 12
    assert is_proved(SECRET, ulid, "mac-1", session.proof)
    assert not is_proved(SECRET, ulid, "mac-2", session.proof)
    assert not is_proved(b"t" * 32, ulid, "mac-1", session.proof)
    assert not is_proved(SECRET, ulid.replace("01kaj", "01kbj"), "mac-1", session.proof)
    assert not is_proved(SECRET, ulid, "mac-1", "é" * 12)


def test_more_sessions_than_fit_travel_in_parts_that_stay_the_same() -> None:
    fleet = pulses(2_500, age_s=86_400.0)
    messages = [json.loads(message) for message in render_beats(fleet)]
    assert [(message["v"], message["part"], len(message["s"])) for message in messages] == [
        (1, 0, 1_000),
        (1, 1, 1_000),
        (1, 2, 500),
    ]
    assert list(render_beats(fleet[::-1])) == list(render_beats(fleet))


def test_a_full_message_of_the_oldest_beats_is_within_its_limit() -> None:
    assert all(len(message) <= MESSAGE_MAX_BYTES for message in render_beats(pulses(1_000, age_s=86_399.9)))


def test_no_sessions_make_no_message() -> None:
    assert list(render_beats([])) == []


def test_an_age_is_rounded_up_and_kept_within_a_day() -> None:
    ages = [json.loads(next(render_beats(pulses(1, age_s))))["s"][0][2] for age_s in (0.0, 0.01, 2.34, 1e9, -5.0)]
    assert ages == [0.0, 0.1, 2.4, 86_400.0, 0.0]


def test_a_connection_says_whose_it_is() -> None:
    assert monitor_of_connection(connection_name("mac-1")) == "mac-1"
