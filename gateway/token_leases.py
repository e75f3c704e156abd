"""Tokens leased from a shared bucket, several at once, and spent in memory.

    spend ──▶ a token of the lease ──none left──▶ next lease, a tenth of a second's worth, from Redis
                                                     └─ none there either ──▶ no, and nobody asked until there is

One question to Redis per lease, so all gateways together may exceed a bucket by their number times the lease.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import anyio
from prometheus_client import CollectorRegistry, Counter

from contracts.errors import Unavailable
from gateway.ports import Bucket, RateLimits

LEASE_S: Final = 0.1
"""How much of a bucket's flow is leased at once; a tenth of a second makes ten questions to Redis a second at most."""
LEASE_KEPT_S: Final = 1.0
"""How long a lease may be spent: what is left of it then stays taken, so that no burst is saved up in memory."""
MAX_ACCOUNTS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """A caller's standing after a request: as far as this process knows."""

    allowed: bool
    remaining: int
    full_after_s: float
    retry_after_s: float = 0


class LimitMetrics:
    """What the limits refuse, and what they could not check."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._trips = Counter(
            "postroom_guard_trips_total", "Messages the guards refused.", ["reason"], registry=registry
        )
        self._unchecked = Counter(
            "postroom_rate_limit_unchecked_total", "Requests let through because Redis was away.", registry=registry
        )

    def tripped(self, reason: str) -> None:
        self._trips.labels(reason).inc()

    def unchecked(self) -> None:
        self._unchecked.inc()


@dataclass(slots=True)
class _Account:
    """One key's tokens in this process."""

    tokens: int = 0
    spend_until: float = 0.0
    none_until: float = 0.0
    left: int = 0
    full_at: float = 0.0
    asking: anyio.Lock = field(default_factory=anyio.Lock)


class Leases:
    """Spends tokens of one kind of bucket. `timer` counts seconds, from anywhere."""

    def __init__(
        self,
        limits: RateLimits,
        bucket: Bucket,
        metrics: LimitMetrics,
        *,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bucket = bucket
        self._limits = limits
        self._metrics = metrics
        self._timer = timer
        self._lease = max(1, int(bucket.per_s * LEASE_S))
        self._accounts: dict[str, _Account] = {}

    async def spend(self, name: str) -> Allowance | None:
        """Spend one token of `name`; None when nobody could be asked, so that nothing is known."""
        account = self._account(name)
        if allowance := self._at_hand(account):
            return allowance
        async with account.asking:
            # Whoever held the lock before may have brought a lease.
            if allowance := self._at_hand(account):
                return allowance
            try:
                await self._renew(name, account)
            except Unavailable:
                self._metrics.unchecked()
                return None
            return self._at_hand(account)

    def _at_hand(self, account: _Account) -> Allowance | None:
        now = self._timer()
        if account.tokens > 0 and now < account.spend_until:
            account.tokens -= 1
            return self._standing(account, now, allowed=True)
        if now < account.none_until:
            return self._standing(account, now, allowed=False)
        return None

    async def _renew(self, name: str, account: _Account) -> None:
        taken = await self._limits.take(name, self.bucket, self._lease)
        now = self._timer()
        account.tokens, account.left = taken.granted, taken.left
        account.spend_until = now + LEASE_KEPT_S
        account.none_until = 0.0 if taken.granted else now + max(taken.retry_after_s, 0.001)
        account.full_at = now + taken.full_after_s

    def _standing(self, account: _Account, now: float, *, allowed: bool) -> Allowance:
        return Allowance(
            allowed=allowed,
            remaining=account.tokens + account.left,
            full_after_s=max(0.0, account.full_at - now),
            retry_after_s=0.0 if allowed else account.none_until - now,
        )

    def wait_of(self, name: str) -> float:
        """For how many seconds `name` is known here to have no token; 0 when it may have one. Asks nobody."""
        account = self._accounts.get(name)
        return 0.0 if account is None else max(0.0, account.none_until - self._timer())

    def _account(self, name: str) -> _Account:
        account = self._accounts.get(name)
        if account is None:
            if len(self._accounts) >= MAX_ACCOUNTS:
                self._accounts.clear()
            account = self._accounts[name] = _Account()
        return account
