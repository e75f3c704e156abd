"""How the authenticator treats tokens: asked about once in two seconds, and never remembered past their end."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.errors import Unauthenticated
from contracts.records import Principal
from gateway.auth import MAX_HEADER_BYTES, MAX_HEADER_BYTES_WITH_TOKENS, Authenticator
from gateway.oidc import TokenBearer
from gateway.ports import Versioned, Write

START = datetime(2026, 1, 1, tzinfo=UTC)
MAX = Principal(owner="max", key_id="oidc-0123456789ab", scopes=frozenset())


class Nothing:
    """A directory store that holds nothing, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def get(self, _: str, __: type[Any], *, fresh: bool = False) -> Versioned[Any] | None:
        self.asked += 1
        return None

    async def get_all(self, *_: Any) -> Any:
        raise NotImplementedError

    async def transact(self, writes: Sequence[Write]) -> None:
        raise NotImplementedError

    async def keys(self, pattern: str) -> list[str]:
        raise NotImplementedError

    async def records(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


class Provider:
    """Knows one token, which ends ten seconds after the start."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ends_at = START + timedelta(seconds=10)

    async def bearer(self, text: str) -> TokenBearer | None:
        self.asked.append(text)
        return TokenBearer(principal=MAX, ends_at=self.ends_at) if text == "good.good.good" else None


class Watchmaker:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at


def bearer(text: str, scheme: str = "Bearer") -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"{scheme} {text}".encode())]


async def refused(authenticator: Authenticator, headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Unauthenticated):
        await authenticator.principal(headers)


async def test_a_token_is_asked_about_once_in_two_seconds() -> None:
    store, clock, provider = Nothing(), Watchmaker(), Provider()
    authenticator = Authenticator(store, clock, tokens=provider)
    for _ in range(3):
        assert await authenticator.principal(bearer("good.good.good")) == MAX
        await refused(authenticator, bearer("bad.bad.bad"))
    assert provider.asked == ["good.good.good", "bad.bad.bad"]

    clock.at += timedelta(seconds=2)
    await authenticator.principal(bearer("good.good.good"))

    assert len(provider.asked) == 3
    assert store.asked == 0


async def test_an_answer_is_never_remembered_past_the_tokens_end() -> None:
    clock, provider = Watchmaker(), Provider()
    authenticator = Authenticator(Nothing(), clock, tokens=provider)
    clock.at = provider.ends_at - timedelta(microseconds=1)
    assert await authenticator.principal(bearer("good.good.good")) == MAX

    clock.at = provider.ends_at
    await authenticator.principal(bearer("good.good.good"))

    assert len(provider.asked) == 2


@pytest.mark.parametrize(
    "headers", [bearer("good.good.good", "Basic"), bearer("good.good"), bearer("a.b.c.d"), bearer("")]
)
async def test_what_is_no_bearer_of_three_parts_is_nobodys_token(headers: list[tuple[bytes, bytes]]) -> None:
    provider = Provider()

    await refused(Authenticator(Nothing(), Watchmaker(), tokens=provider), headers)

    assert provider.asked == []


async def test_headers_may_be_as_long_as_tokens_only_where_there_is_a_provider() -> None:
    provider = Provider()
    with_tokens = Authenticator(Nothing(), Watchmaker(), tokens=provider)
    without = Authenticator(Nothing(), Watchmaker())
    long = f"{'a' * MAX_HEADER_BYTES}.b.c"

    await refused(with_tokens, bearer(long))
    await refused(without, bearer(long))
    await refused(with_tokens, bearer(f"{'a' * MAX_HEADER_BYTES_WITH_TOKENS}.b.c"))
    await refused(without, bearer("good.good.good"))

    assert provider.asked == [long]
    assert len(without._bad) == 1
