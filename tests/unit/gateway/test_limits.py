"""Leases, failures and headers: the arithmetic of the limits, with a clock that is moved by hand."""

from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from contracts.errors import Unavailable
from gateway.limits import Failures, LimitSettings, address_of, headers_of
from gateway.ports import Bucket, Tokens
from gateway.token_leases import Allowance, Leases, LimitMetrics

BUCKET = Bucket(per_s=50, size=100)


class Shelf:
    """A bucket that holds what a test puts into it."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.asked = 0
        self.is_away = False

    async def take(self, name: str, bucket: Bucket, wanted: int) -> Tokens:
        self.asked += 1
        if self.is_away:
            raise Unavailable("store_unavailable", "away")
        granted = min(wanted, self.tokens)
        self.tokens -= granted
        wait = 0 if self.tokens else 2.0
        return Tokens(granted=granted, left=self.tokens, retry_after_s=wait, full_after_s=10)


class Hand:
    """A timer moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def leases(shelf: Shelf, hand: Hand) -> Leases:
    return Leases(shelf, BUCKET, LimitMetrics(CollectorRegistry()), timer=hand)


async def spent(from_leases: Leases) -> Allowance:
    allowance = await from_leases.spend("key:k")
    assert allowance is not None
    return allowance


async def test_a_lease_is_spent_in_memory_and_then_renewed() -> None:
    shelf = Shelf(7)
    own = leases(shelf, Hand())

    first = [await spent(own) for _ in range(5)]

    assert shelf.asked == 1
    assert [each.remaining for each in first] == [6, 5, 4, 3, 2]
    assert [(await spent(own)).allowed for _ in range(2)] == [True, True]
    assert shelf.asked == 2


async def test_an_empty_bucket_is_not_asked_again_before_it_has_something() -> None:
    shelf, hand = Shelf(0), Hand()
    own = leases(shelf, hand)

    refused = [await spent(own) for _ in range(9)]

    assert shelf.asked == 1
    assert all((each.allowed, each.retry_after_s) == (False, 2.0) for each in refused)
    hand.now += 2.1
    shelf.tokens = 3
    assert (await spent(own)).allowed


async def test_how_long_nothing_is_there_is_known_without_asking() -> None:
    shelf, hand = Shelf(0), Hand()
    own = leases(shelf, hand)
    assert own.wait_of("key:k") == 0

    await spent(own)

    assert own.wait_of("key:k") == 2.0
    assert own.wait_of("key:other") == 0
    hand.now += 2.1
    assert own.wait_of("key:k") == 0
    assert shelf.asked == 1


async def test_what_is_not_spent_in_time_is_not_saved_up() -> None:
    shelf, hand = Shelf(100), Hand()
    own = leases(shelf, hand)
    await spent(own)
    hand.now += 1.1
    await spent(own)
    assert (shelf.asked, shelf.tokens) == (2, 90)


async def test_each_name_has_tokens_of_its_own() -> None:
    shelf = Shelf(100)
    own = leases(shelf, Hand())
    await own.spend("key:a")
    await own.spend("key:b")
    assert shelf.asked == 2


async def test_a_store_that_is_away_lets_everything_pass() -> None:
    shelf = Shelf(100)
    shelf.is_away = True
    assert await leases(shelf, Hand()).spend("key:k") is None


class TestFailures:
    def test_so_many_a_minute_are_answered_as_usual(self) -> None:
        hand = Hand()
        failures = Failures(3, timer=hand)
        assert [failures.note("a") for _ in range(3)] == [0, 0, 0]
        assert failures.note("a") == pytest.approx(20)
        assert failures.note("b") == 0
        hand.now += 20.1
        assert failures.note("a") == 0
        assert failures.note("a") > 0

    def test_zero_is_no_limit(self) -> None:
        failures = Failures(0, timer=Hand())
        assert [failures.note("a") for _ in range(100)] == [0] * 100


class TestAddresses:
    @pytest.mark.parametrize(
        ("client", "address"),
        [
            (("192.0.2.7", 1), "192.0.2.7"),
            (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
            (("/run/gateway.sock", 0), "/run/gateway.sock"),
            (None, ""),
        ],
    )
    def test_an_address_is_the_connections(self, client: Any, address: str) -> None:
        headers = [(b"x-forwarded-for", b"198.51.100.1"), (b"forwarded", b"for=198.51.100.1")]
        assert address_of({"type": "http", "client": client, "headers": headers}) == address


def test_headers_say_policy_and_standing_in_both_spellings() -> None:
    now = datetime(2026, 3, 4, tzinfo=UTC)
    standing = Allowance(allowed=True, remaining=41, full_after_s=1.2)
    assert dict(headers_of(standing, BUCKET, now)) == {
        b"ratelimit-policy": b'"key";q=100;w=2',
        b"ratelimit": b'"key";r=41;t=2',
        b"x-ratelimit-limit": b"100",
        b"x-ratelimit-remaining": b"41",
        b"x-ratelimit-reset": str(int(now.timestamp()) + 2).encode(),
    }


def test_a_bucket_holds_as_many_seconds_as_are_set() -> None:
    assert LimitSettings().bucket is None
    assert LimitSettings(per_key_per_s=2.5, burst_s=3).bucket == Bucket(per_s=2.5, size=8)
    assert LimitSettings(per_key_per_s=0.01, burst_s=1).bucket == Bucket(per_s=0.01, size=1)
    assert LimitSettings(lookups_per_min=30).lookup_bucket == Bucket(per_s=0.5, size=30)
    assert LimitSettings(lookups_per_min=0).lookup_bucket is None
