"""What a sender is told of what arrived."""

import hashlib
import json

from gateway.verify_echo import asks_for_echo, echo_of, wants_echo, with_echo


def test_a_text_is_hashed_as_its_utf_8() -> None:
    told = echo_of("Grüße")
    assert told["body_received"] == "Grüße"
    assert told["body_received_sha256"] == hashlib.sha256("Grüße".encode()).hexdigest()


def test_an_object_is_hashed_with_sorted_keys_no_spaces_and_its_own_characters() -> None:
    told = echo_of({"b": 1, "a": "ü"})
    assert told["body_received_sha256"] == hashlib.sha256('{"a":"ü","b":1}'.encode()).hexdigest()


def test_nothing_received_is_null_and_the_hash_of_nothing() -> None:
    assert echo_of(None) == {"body_received": None, "body_received_sha256": hashlib.sha256(b"").hexdigest()}


def test_an_answer_that_is_no_object_stays_as_it_is() -> None:
    assert with_echo(b"[1]", {}) == b"[1]"
    assert with_echo(b"", {}) == b""
    assert json.loads(with_echo(b'{"id":1}', {"x": 1}))["body_received"] == {"x": 1}


def test_only_true_asks_for_an_echo_in_either_spelling() -> None:
    assert asks_for_echo(b" TRUE ")
    assert not asks_for_echo(b"1")
    assert wants_echo([(b"x-cueapi-verify-echo", b"true")])
    assert wants_echo([(b"x-postroom-verify-echo", b"true")])
    assert not wants_echo([(b"x-postroom-verify-echo", b"false"), (b"accept", b"true")])
