"""The authenticator's memory: short, bounded, and never in the way of a revocation."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.errors import Unauthenticated
from contracts.records import ApiKey, Principal
from gateway.auth import MAX_REMEMBERED, Authenticator, authorize
from gateway.keys import KEY_BYTES, KeyText, new_key
from gateway.ports import Versioned, Write

START = datetime(2026, 1, 1, tzinfo=UTC)


class Shelf:
    """A directory store of one key, which counts how often it is asked."""

    def __init__(self, record: ApiKey) -> None:
        self.record = record
        self.asked = 0

    async def get(self, key: str, _: type[Any], *, fresh: bool = False) -> Versioned[Any] | None:
        self.asked += 1
        return Versioned(record=self.record, seq=1) if key == f"key.{self.record.key_id}" else None

    async def get_all(self, *_: Any) -> Any:
        raise NotImplementedError

    async def records(self, *_: Any) -> Any:
        raise NotImplementedError

    async def transact(self, writes: Sequence[Write]) -> None:
        raise NotImplementedError

    async def keys(self, pattern: str) -> list[str]:
        raise NotImplementedError


class Watchmaker:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at


def scene() -> tuple[KeyText, Shelf, Watchmaker, Authenticator]:
    key, clock = new_key(secrets.token_bytes(KEY_BYTES)), Watchmaker()
    record = ApiKey(key_id=key.key_id, owner="max", secret_sha256=key.secret_sha256, created_at=START)
    shelf = Shelf(record)
    return key, shelf, clock, Authenticator(shelf, clock)


def bearer(text: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {text}".encode())]


async def refused(authenticator: Authenticator, text: str) -> None:
    with pytest.raises(Unauthenticated):
        await authenticator.principal(bearer(text))


async def test_an_answer_is_remembered_for_two_seconds_and_no_longer() -> None:
    key, shelf, clock, authenticator = scene()
    for _ in range(3):
        assert await authenticator.principal(bearer(key.text)) == Principal(owner="max", key_id=key.key_id)
    assert shelf.asked == 1

    shelf.record = replace(shelf.record, revoked_at=START)
    clock.at += timedelta(seconds=2, microseconds=1)
    await refused(authenticator, key.text)


async def test_a_revocation_here_counts_at_once() -> None:
    key, shelf, _, authenticator = scene()
    await authenticator.principal(bearer(key.text))

    shelf.record = replace(shelf.record, revoked_at=START)
    authenticator.forget(key.key_id)

    await refused(authenticator, key.text)


async def test_wrong_keys_are_remembered_too_and_never_push_a_right_one_out() -> None:
    key, shelf, _, authenticator = scene()
    await authenticator.principal(bearer(key.text))
    wrong = replace(key, secret="x" * 43).text
    for _ in range(3):
        await refused(authenticator, wrong)
    assert shelf.asked == 2

    for number in range(MAX_REMEMBERED + 1):
        await refused(authenticator, f"nonsense{number}")
    await authenticator.principal(bearer(key.text))

    assert shelf.asked == 2


async def test_what_cannot_be_a_key_is_refused_before_anybody_is_asked() -> None:
    _, shelf, _, authenticator = scene()

    for text in ("", "x", "x" * 10_000, "pr_" + "a" * 63):
        await refused(authenticator, text)

    assert shelf.asked == 0


def test_an_owner_acts_on_his_own_and_an_admin_on_everything() -> None:
    owner, admin = Principal(owner="max", key_id="a"), Principal(owner="local", key_id="b", admin=True)

    assert authorize(owner, "agent.read", "max")
    assert not authorize(owner, "agent.read", "eve")
    assert not authorize(owner, "key.mint_admin", "max")
    assert authorize(admin, "agent.read", "eve")
    assert authorize(admin, "key.mint_admin", "eve")
