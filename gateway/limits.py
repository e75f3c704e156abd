"""How fast a key may call: a token for every request, and what is left told in every answer's headers.

When Redis is away requests pass, and are counted. Requests without a valid key are limited by the address of the
connection, in memory: what a header says of addresses is anybody's word. Lookups in vain have a budget of their own.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.clock import Clock
from contracts.errors import NotFound, Rejected, TooMany, Unauthenticated
from gateway.auth import Authenticator
from gateway.lookups import NOT_FOUND, LookupBudget
from gateway.ports import Bucket, RateLimits
from gateway.token_leases import MAX_ACCOUNTS, Allowance, Leases, LimitMetrics
from router.terms import GUARDED

LIMITED: Final = "/v1/"
_STANDING: Final = "rate_limit"
_TRIPS: Final = frozenset(reason.value for reason in GUARDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """What is limited; 0 switches a limit off. A bucket holds `burst_s` seconds' worth of tokens."""

    per_key_per_s: float = 0
    burst_s: int = 10
    failures_per_min: int = 600
    lookups_per_min: int = 600

    @property
    def bucket(self) -> Bucket | None:
        if not self.per_key_per_s:
            return None
        return Bucket(per_s=self.per_key_per_s, size=max(1, math.ceil(self.per_key_per_s * self.burst_s)))

    @property
    def lookup_bucket(self) -> Bucket | None:
        """A minute's worth may be spent at once."""
        if not self.lookups_per_min:
            return None
        return Bucket(per_s=self.lookups_per_min / 60, size=self.lookups_per_min)


class Failures:
    """How often an address may fail to say who it is. In memory: each process counts for itself."""

    def __init__(self, per_min: int, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._per_min = per_min
        self._timer = timer
        # The instant at which an address has used nothing; the address heard of last comes last.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def note(self, address: str) -> float:
        """Count a failure; the seconds until the next one is answered as usual, 0 when this one is."""
        if not self._per_min:
            return 0
        now, step = self._timer(), 60 / self._per_min
        full_at = max(self._full_at.pop(address, now), now)
        wait = full_at + step - 60 - now
        self._full_at[address] = full_at if wait > 0 else full_at + step
        if len(self._full_at) > MAX_ACCOUNTS:
            self._full_at.popitem(last=False)
        return max(0.0, wait)


class Limits:
    """An ASGI layer within the edge: who calls too fast learns when to come back, before anything else is done."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticator: Authenticator,
        leases: Leases | None,
        lookups: LookupBudget,
        failures: Failures,
        metrics: LimitMetrics,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._leases = leases
        self._lookups = lookups
        self._failures = failures
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._leases is not None and scope["type"] == "http" and scope["path"].startswith(LIMITED):
                await self._admit(self._leases, scope)
            await self._app(scope, receive, send)
        except Unauthenticated:
            if wait := self._failures.note(address_of(scope)):
                raise _too_many("Too many requests without a valid key.", wait) from None
            raise
        except NotFound as error:
            if error.code == NOT_FOUND:
                await self._lookups.missed(await self._authenticator.principal(scope["headers"]))
            raise
        except Rejected as error:
            if error.code in _TRIPS and "trace" in error.facts:
                self._metrics.tripped(error.code)
            raise

    async def _admit(self, leases: Leases, scope: Scope) -> None:
        try:
            principal = await self._authenticator.principal(scope["headers"], scope["query_string"])
        except Rejected:
            # Whoever takes the request says so, or needs no key.
            return
        allowance = await leases.spend(f"key:{principal.key_id}")
        if allowance is None:
            return
        scope[_STANDING] = allowance
        if not allowance.allowed:
            raise _too_many("This key calls faster than it may.", allowance.retry_after_s)


class LimitHeaders:
    """An ASGI layer around the edge, which answers refusals: every answer says how the caller stands."""

    def __init__(self, app: ASGIApp, *, bucket: Bucket, clock: Clock) -> None:
        self._app = app
        self._bucket = bucket
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def telling(message: Message) -> None:
            standing: Any = scope.get(_STANDING)
            if message["type"] == "http.response.start" and isinstance(standing, Allowance):
                told = headers_of(standing, self._bucket, self._clock.now())
                message["headers"] = [*message.get("headers", ()), *told]
            await send(message)

        await self._app(scope, receive, telling if scope["type"] == "http" else send)


class LimitLayers:
    """The layers of one gateway: the same leases behind every way in."""

    def __init__(
        self,
        settings: LimitSettings,
        limits: RateLimits,
        *,
        authenticator: Authenticator,
        registry: CollectorRegistry,
        clock: Clock,
    ) -> None:
        self._authenticator = authenticator
        self._clock = clock
        self._metrics = LimitMetrics(registry)
        self._failures = Failures(settings.failures_per_min)
        self._leases = self._leases_of(limits, settings.bucket)
        self.lookups = LookupBudget(self._leases_of(limits, settings.lookup_bucket))

    def within(self, app: ASGIApp) -> ASGIApp:
        """The layer to put inside the edge."""
        return Limits(
            app,
            authenticator=self._authenticator,
            leases=self._leases,
            lookups=self.lookups,
            failures=self._failures,
            metrics=self._metrics,
        )

    def around(self, app: ASGIApp) -> ASGIApp:
        """The layer to put around the edge; none where nothing is limited."""
        return LimitHeaders(app, bucket=self._leases.bucket, clock=self._clock) if self._leases else app

    def _leases_of(self, limits: RateLimits, bucket: Bucket | None) -> Leases | None:
        return Leases(limits, bucket, self._metrics) if bucket else None


def headers_of(standing: Allowance, bucket: Bucket, now: datetime) -> list[tuple[bytes, bytes]]:
    """`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers), and the three older ones.

    The older reset is an instant in epoch seconds, the newer one a number of seconds.
    """
    full_after_s = math.ceil(standing.full_after_s)
    window_s = math.ceil(bucket.size / bucket.per_s)
    told = {
        b"ratelimit-policy": f'"key";q={bucket.size};w={window_s}',
        b"ratelimit": f'"key";r={standing.remaining};t={full_after_s}',
        b"x-ratelimit-limit": str(bucket.size),
        b"x-ratelimit-remaining": str(standing.remaining),
        b"x-ratelimit-reset": str(math.ceil(now.timestamp() + standing.full_after_s)),
    }
    return [(name, value.encode()) for name, value in told.items()]


def address_of(scope: Scope) -> str:
    """Where the connection comes from; of an IPv6 address the network, which one host has to itself."""
    client = scope.get("client")
    text = str(client[0]) if client else ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    if address.version == 6:
        return str(ipaddress.ip_network(f"{address}/64", strict=False))
    return text


def _too_many(message: str, wait_s: float) -> TooMany:
    return TooMany("rate_limit_exceeded", message, retry_after_s=max(0.001, round(wait_s, 3)))
