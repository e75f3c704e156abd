"""The keys an OpenID provider signs with: fetched in the background, answered out of memory.

    every five minutes, and a few seconds after a key id nobody knows ──▶ discovery ──▶ key set ──▶ memory ──▶ find

A request never waits for the provider. While it is away its last keys go on counting, for six hours at most; a key it
no longer names is gone with the next fetch.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import anyio
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic_core import from_json

from contracts.clock import Clock
from gateway.ports import PublicKey
from infra.background import beside

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
MAX_DISCOVERY_BYTES: Final = 64 * 1024
MAX_KEY_SET_BYTES: Final = 1024**2
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
_ALGORITHMS: Final[Mapping[str, tuple[str, ...]]] = {"RSA": ("RS256", "PS256"), "EC": ("ES256",), "OKP": ("EdDSA",)}
_HEADERS: Final = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "postroom-oidc/1"}
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})

Jwk = dict[str, Any]
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often the provider is asked, and how long its last answer counts. In seconds."""

    refresh_s: float = 300
    gap_s: float = 5
    keep_s: float = 6 * 3600
    fetch_s: float = 5
    start_s: float = 2


class FetchFailed(Exception):
    """The provider gave no keys. Its reason is a stable word; what the provider said is not repeated."""


class ProviderKeys:
    """Implements `gateway.ports.TokenKeys`. Made by `provider_keys`."""

    def __init__(
        self,
        issuer: str,
        session: aiohttp.ClientSession,
        clock: Clock,
        *,
        jwks_url: str | None = None,
        allow_loopback: bool = False,
        pace: Pace | None = None,
    ) -> None:
        self._issuer = issuer
        self._session = session
        self._clock = clock
        self._jwks_url = jwks_url
        self._allow_loopback = allow_loopback
        self._pace = pace or Pace()
        self._fetched_at: datetime | None = None
        self._jwks: dict[tuple[str, str], Jwk] = {}
        self._keys: dict[tuple[str, str], PublicKey | None] = {}
        self._missed = anyio.Event()
        self._is_failing = False
        self.first_try = anyio.Event()

    def find(self, kid: str, algorithm: str) -> PublicKey | None:
        name = (kid, algorithm)
        if self._is_outdated() or name not in self._jwks:
            self._missed.set()
            return None
        # Made when it is first asked for: a key set may hold hundreds that nobody uses here.
        if name not in self._keys:
            self._keys[name] = _public_key(self._jwks[name])
        return self._keys[name]

    async def run(self) -> None:
        """Keep the keys fresh, until cancelled. Whatever the provider does, this goes on."""
        while True:
            self._missed = anyio.Event()
            succeeded = await self._refresh()
            self.first_try.set()
            await anyio.sleep(self._pace.gap_s)
            if succeeded:
                with anyio.move_on_after(self._pace.refresh_s - self._pace.gap_s):
                    await self._missed.wait()

    async def _refresh(self) -> bool:
        try:
            with anyio.fail_after(self._pace.fetch_s):
                jwks = usable_keys(await self._read(await self._key_set_url(), MAX_KEY_SET_BYTES))
        except (FetchFailed, aiohttp.ClientError, OSError, ValueError) as error:
            self._note_failure(error)
            return False
        if jwks != self._jwks:
            self._jwks, self._keys = jwks, {}
        self._fetched_at = self._clock.now()
        if self._is_failing:
            log.info("oidc_keys_available", issuer=self._issuer, keys=len(jwks))
        self._is_failing = False
        return True

    def _note_failure(self, error: Exception) -> None:
        if not self._is_failing:
            reason = str(error) if isinstance(error, FetchFailed) else type(error).__name__
            log.warning("oidc_keys_unavailable", issuer=self._issuer, reason=reason, keep_s=self._pace.keep_s)
        self._is_failing = True

    async def _key_set_url(self) -> str:
        if self._jwks_url is not None:
            return self._jwks_url
        document = await self._read(self._issuer.rstrip("/") + DISCOVERY_PATH, MAX_DISCOVERY_BYTES)
        url = document.get("jwks_uri")
        # OpenID Connect Discovery, section 4.3: a document about another issuer is not to be used.
        if document.get("issuer") != self._issuer or not isinstance(url, str):
            raise FetchFailed("discovery_mismatch")
        if not may_be_asked(url, allow_loopback=self._allow_loopback):
            raise FetchFailed("insecure_url")
        return url

    async def _read(self, url: str, limit_bytes: int) -> Jwk:
        async with self._session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise FetchFailed("redirect" if 300 <= response.status < 400 else "bad_status")
            body = bytearray()
            async for chunk in response.content.iter_chunked(65_536):
                body += chunk
                if len(body) > limit_bytes:
                    raise FetchFailed("too_large")
        document = from_json(bytes(body))
        if not isinstance(document, dict):
            raise FetchFailed("not_an_object")
        return document

    def _is_outdated(self) -> bool:
        if self._fetched_at is None:
            return True
        return self._clock.now() - self._fetched_at > timedelta(seconds=self._pace.keep_s)


@asynccontextmanager
async def provider_keys(
    issuer: str,
    clock: Clock,
    *,
    jwks_url: str | None = None,
    allow_loopback: bool = False,
    pace: Pace | None = None,
) -> AsyncIterator[ProviderKeys]:
    """The provider's keys, kept fresh until the block ends. A provider that is away at the start delays it by seconds.

    Raises `ValueError` for a URL that is not https; with `allow_loopback` (development) http to this machine will do.
    """
    for url in filter(None, (issuer, jwks_url)):
        if not may_be_asked(url, allow_loopback=allow_loopback):
            raise ValueError("the OpenID provider's URLs begin with https:// and name no user")
    pace = pace or Pace()
    async with aiohttp.ClientSession(
        headers=_HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=pace.fetch_s),
    ) as session:
        keys = ProviderKeys(issuer, session, clock, jwks_url=jwks_url, allow_loopback=allow_loopback, pace=pace)
        async with beside(keys.run):
            with anyio.move_on_after(pace.start_s):
                await keys.first_try.wait()
            yield keys


def may_be_asked(url: str, *, allow_loopback: bool) -> bool:
    """Whether keys may come from this URL: what travels in the clear could be anybody's."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or parts.fragment:
        return False
    return parts.scheme == "https" or (allow_loopback and parts.scheme == "http" and host in _LOOPBACK)


def usable_keys(key_set: Jwk) -> dict[tuple[str, str], Jwk]:
    """The keys for signatures in a key set (RFC 7517), by key id and algorithm. Raises `FetchFailed` without a list."""
    listed = key_set.get("keys")
    if not isinstance(listed, list):
        raise FetchFailed("no_key_set")
    usable: dict[tuple[str, str], Jwk] = {}
    for jwk in listed:
        for algorithm in _algorithms_of(jwk):
            usable.setdefault((jwk["kid"], algorithm), jwk)
    return usable


def _algorithms_of(jwk: Any) -> tuple[str, ...]:
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str) or not isinstance(jwk.get("kty"), str):
        return ()
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return ()
    of_kind = _ALGORITHMS.get(jwk["kty"], ())
    return tuple(algorithm for algorithm in of_kind if jwk.get("alg", algorithm) == algorithm)


def _public_key(jwk: Jwk) -> PublicKey | None:
    """The key itself; None when it is none, or one too weak or too slow to be taken."""
    public = {name: value for name, value in jwk.items() if name in {"kty", "n", "e", "crv", "x", "y"}}
    try:
        key = jwt.PyJWK(public, algorithm=_ALGORITHMS[jwk["kty"]][0]).key
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        log.warning("oidc_key_unusable", reason=type(error).__name__)
        return None
    match key:
        case RSAPublicKey() if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            return key
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            return key
        case Ed25519PublicKey():
            return key
    log.warning("oidc_key_unusable", reason="kind_or_size")
    return None
