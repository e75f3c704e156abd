"""The provider's keys over a real server on loopback: rotation, outages, and answers that are none."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import structlog

from infra.clock import SystemClock
from infra.oidc_keys import MAX_KEY_SET_BYTES, Pace, ProviderKeys, may_be_asked, provider_keys, usable_keys
from tests.oidc_provider import Issuer, Signer, new_private, provider, signer

QUICK = Pace(refresh_s=0.06, gap_s=0.02, fetch_s=0.5, start_s=2)
SELDOM = Pace(refresh_s=3600, gap_s=0.05, fetch_s=0.5, start_s=2)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with provider() as running:
        yield running


def keys_of(issuer: Issuer, pace: Pace = QUICK, **more: Any) -> AbstractAsyncContextManager[ProviderKeys]:
    return provider_keys(issuer.url, more.pop("clock", SystemClock()), allow_loopback=True, pace=pace, **more)


def has(keys: ProviderKeys, kid: str, algorithm: str = "RS256") -> Callable[[], bool]:
    return lambda: keys.find(kid, algorithm) is not None


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.sleep(0.005)


async def asked_again(issuer: Issuer, times: int = 4) -> None:
    """Wait for two more rounds of discovery and key set: what they brought is known then."""
    seen = issuer.asked
    await until(lambda: issuer.asked >= seen + times)


async def test_keys_are_there_when_the_start_is_over_and_take_only_their_own_algorithms(issuer: Issuer) -> None:
    async with keys_of(issuer, SELDOM) as keys:
        assert keys.find("rsa-key", "RS256") == keys.find("rsa-key", "PS256") == signer("rsa").private.public_key()
        assert keys.find("ec-key", "ES256") is not None
        assert keys.find("ed-key", "EdDSA") is not None
        for kid, algorithm in (("rsa-key", "HS256"), ("rsa-key", "ES256"), ("ec-key", "RS256"), ("ed-key", "none")):
            assert keys.find(kid, algorithm) is None


async def test_a_thousand_lookups_ask_the_provider_nothing(issuer: Issuer) -> None:
    async with keys_of(issuer, SELDOM) as keys:
        before = issuer.asked
        for _ in range(1_000):
            keys.find("rsa-key", "RS256")
        await anyio.lowlevel.checkpoint()

        assert issuer.asked == before == 2


async def test_a_new_key_is_known_soon_after_it_is_first_named_and_an_old_one_no_more(issuer: Issuer) -> None:
    async with keys_of(issuer, SELDOM) as keys:
        issuer.rotate()
        new = issuer.signers[0].kid
        assert keys.find(new, "RS256") is None

        await until(has(keys, new))

        assert keys.find("rsa-key", "RS256") is None


async def test_names_nobody_knows_make_the_provider_be_asked_once_in_a_while(issuer: Issuer) -> None:
    pace = Pace(refresh_s=3600, gap_s=0.2, fetch_s=0.5)
    async with keys_of(issuer, pace) as keys:
        before, began = issuer.asked, anyio.current_time()
        while anyio.current_time() < began + 0.7:
            keys.find("../../etc/passwd", "RS256")
            await anyio.sleep(0.001)

        assert 2 <= issuer.asked - before <= 2 * 4


async def test_keys_are_fetched_anew_without_anybody_asking(issuer: Issuer) -> None:
    async with keys_of(issuer) as keys:
        await asked_again(issuer)
        issuer.rotate()
        await asked_again(issuer)

        assert keys.find(issuer.signers[1].kid, "ES256") is not None


async def test_a_provider_that_is_away_at_the_start_is_found_when_it_comes(issuer: Issuer) -> None:
    issuer.is_away = True
    async with keys_of(issuer) as keys:
        assert keys.find("rsa-key", "RS256") is None
        issuer.is_away = False
        await until(has(keys, "rsa-key"))


async def test_the_start_does_not_wait_for_a_provider_that_does_not_answer(issuer: Issuer) -> None:
    issuer.delay_s = 30
    began = anyio.current_time()
    async with keys_of(issuer, Pace(start_s=0.1)) as keys:
        assert anyio.current_time() - began < 2
        assert keys.find("rsa-key", "RS256") is None


class Hours:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def now(self) -> datetime:
        return self.at


async def test_old_keys_count_while_the_provider_is_away_and_not_for_ever(issuer: Issuer) -> None:
    clock = Hours()
    async with keys_of(issuer, clock=clock) as keys:
        issuer.is_away = True
        await asked_again(issuer, times=3)
        clock.at += timedelta(hours=6)
        assert keys.find("rsa-key", "RS256") is not None

        clock.at += timedelta(seconds=1)
        assert keys.find("rsa-key", "RS256") is None

        issuer.is_away = False
        await until(has(keys, "rsa-key"))


async def test_a_provider_that_takes_its_keys_back_is_believed(issuer: Issuer) -> None:
    async with keys_of(issuer) as keys:
        issuer.signers = []
        await until(lambda: keys.find("rsa-key", "RS256") is None)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b'{"keys": {}}',
        b'{"keys": null}',
        b'{"keys": [' + b" " * MAX_KEY_SET_BYTES + b"]}",
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=["empty", "broken", "list", "object", "null", "too large", "deep", "no text"],
)
async def test_what_is_no_key_set_changes_nothing(issuer: Issuer, document: bytes) -> None:
    async with keys_of(issuer) as keys:
        issuer.document = document
        await asked_again(issuer)

        assert keys.find("rsa-key", "RS256") is not None


async def test_a_redirect_is_not_followed(issuer: Issuer) -> None:
    issuer.redirects = True
    with structlog.testing.capture_logs() as logs:
        async with keys_of(issuer) as keys:
            await asked_again(issuer)
            assert keys.find("rsa-key", "RS256") is None

    told = [line for line in logs if line["event"] == "oidc_keys_unavailable"]
    assert [line["reason"] for line in told] == ["redirect"]


async def test_a_set_of_a_thousand_keys_holds_them_all_and_makes_those_that_are_asked_for(issuer: Issuer) -> None:
    one = signer("rsa").jwk
    issuer.more_jwks = [{**one, "kid": f"extra-{number}"} for number in range(1_000)]
    async with keys_of(issuer, SELDOM) as keys:
        assert keys.find("extra-999", "RS256") is not None
        assert keys.find("rsa-key", "RS256") is not None
        assert len(keys._keys) == 2


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "kid": "x", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "x", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "kid": "x", "n": 7, "e": None},
        {"kty": "RSA", "kid": "x"},
        {"kty": "RSA", "kid": "x", "n": "AQAB", "e": "AQAB", "use": "enc"},
        {"kty": "RSA", "kid": "x", "n": "AQAB", "e": "AQAB", "key_ops": ["sign"]},
        {"kty": "RSA", "kid": "x", "n": "AQAB", "e": "AQAB", "key_ops": 7},
        {"kty": "EC", "kid": "x", "crv": "P-384", "x": "AA", "y": "AA"},
        {"kty": "OKP", "kid": "x", "crv": "Ed448", "x": "AA"},
        {"kty": ["RSA"], "kid": "x"},
        {"kty": "RSA", "kid": ["x"]},
        {"kty": "RSA"},
        "text",
        None,
    ],
)
async def test_a_key_that_will_not_do_spoils_no_other(issuer: Issuer, jwk: Any) -> None:
    issuer.more_jwks = [jwk]
    async with keys_of(issuer, SELDOM) as keys:
        assert keys.find("rsa-key", "RS256") is not None
        assert [keys.find("x", each) for each in ("RS256", "PS256", "ES256", "EdDSA", "HS256")] == [None] * 5


def test_a_key_with_an_algorithm_of_its_own_takes_no_other() -> None:
    only = Signer("only", new_private("rsa"), alg="PS256")

    assert set(usable_keys({"keys": [only.jwk]})) == {("only", "PS256")}


async def test_a_key_set_may_be_named_by_the_settings(issuer: Issuer) -> None:
    async with keys_of(issuer, SELDOM, jwks_url=f"{issuer.url}/jwks") as keys:
        assert keys.find("rsa-key", "RS256") is not None
        assert issuer.asked == 1


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ({"issuer": "https://evil.example"}, "discovery_mismatch"),
        ({"jwks_uri": 7}, "discovery_mismatch"),
        ({"jwks_uri": "http://evil.example/jwks"}, "insecure_url"),
        ({"jwks_uri": "file:///etc/passwd"}, "insecure_url"),
    ],
)
async def test_a_discovery_document_about_somebody_else_or_in_the_clear_is_refused(
    issuer: Issuer, named: dict[str, Any], reason: str
) -> None:
    issuer.discovery = named
    with structlog.testing.capture_logs() as logs:
        async with keys_of(issuer, SELDOM) as keys:
            assert keys.find("rsa-key", "RS256") is None

    assert [line["reason"] for line in logs] == [reason]


@pytest.mark.parametrize(
    ("url", "in_development", "in_production"),
    [
        ("https://issuer.example/realm", True, True),
        ("https://10.0.0.7:8443", True, True),
        ("http://127.0.0.1:8080", True, False),
        ("http://[::1]:8080", True, False),
        ("http://localhost:8080/x", True, False),
        ("http://issuer.example", False, False),
        ("http://127.0.0.1.evil.example", False, False),
        ("https://user:password@issuer.example", False, False),
        ("https://issuer.example/#x", False, False),
        ("https://", False, False),
        ("https://issuer.example:99999", False, False),
        ("file:///etc/passwd", False, False),
        ("issuer.example", False, False),
        ("https://[", False, False),
    ],
)
def test_keys_come_over_tls_or_from_this_machine(url: str, in_development: bool, in_production: bool) -> None:
    assert may_be_asked(url, allow_loopback=True) is in_development
    assert may_be_asked(url, allow_loopback=False) is in_production


async def test_a_provider_in_the_clear_is_refused_at_the_start(issuer: Issuer) -> None:
    with pytest.raises(ValueError, match="https"):
        async with provider_keys(issuer.url, SystemClock()):
            pass


async def test_an_outage_is_logged_once_and_so_is_its_end(issuer: Issuer) -> None:
    with structlog.testing.capture_logs() as logs:
        async with keys_of(issuer):
            issuer.is_away = True
            await asked_again(issuer, times=5)
            issuer.is_away = False
            await asked_again(issuer)

    assert [line["event"] for line in logs] == ["oidc_keys_unavailable", "oidc_keys_available"]
    assert json.dumps(logs).count("http") == 2
