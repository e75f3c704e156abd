"""API keys: what a mistyped one is worth, and what is stored of a right one."""

import hashlib
import secrets
from dataclasses import replace

import pytest

from gateway.keys import KEY_BYTES, KEY_LENGTH, new_key, parse_key


def fresh() -> str:
    return new_key(secrets.token_bytes(KEY_BYTES)).text


def test_a_key_is_read_as_it_was_written() -> None:
    key = new_key(secrets.token_bytes(KEY_BYTES))

    assert parse_key(key.text) == key
    assert len(key.text) == KEY_LENGTH
    assert key.secret_sha256 == hashlib.sha256(key.secret.encode()).hexdigest()


def test_every_single_typing_error_is_noticed() -> None:
    text = fresh()
    for place in range(len(text)):
        other = "x" if text[place] != "x" else "y"
        assert parse_key(text[:place] + other + text[place + 1 :]) is None


@pytest.mark.parametrize("text", ["", "pr_", "x" * 10_000, "pr_" + "a" * 10_000])
def test_what_is_no_key_is_none(text: str) -> None:
    assert parse_key(text) is None
    assert parse_key(fresh() + text + "x") is None


def test_a_key_never_shows_its_secret() -> None:
    key = new_key(secrets.token_bytes(KEY_BYTES))

    assert key.secret not in repr(key)


def test_too_little_randomness_makes_no_key() -> None:
    with pytest.raises(ValueError, match="44 bytes"):
        new_key(b"short")


def test_keys_differ_in_every_part() -> None:
    keys = [new_key(secrets.token_bytes(KEY_BYTES)) for _ in range(100)]

    assert len({key.key_id for key in keys}) == len({key.secret for key in keys}) == 100
    assert parse_key(replace(keys[0], secret=keys[1].secret).text) is not None
