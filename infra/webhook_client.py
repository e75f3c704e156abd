"""Signed webhooks over HTTP: one POST, to an address that was judged, with an answer for whatever the receiver does.

    url ──check_url──▶ name ──resolve once──▶ addresses ──judge all──▶ connect to one of them ──▶ POST ──▶ status

The name stays in the Host header and in TLS (SNI and certificate); the connection goes to the judged address.
Redirects, proxies, cookies and content encodings are off: each lets a receiver choose where we go or how much we read.
"""

import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Self

import aiohttp
import anyio
import anyio.to_thread
from aiohttp.abc import AbstractResolver, ResolveResult
from anyio import CapacityLimiter
from yarl import URL

from contracts.clock import Clock
from contracts.errors import Invalid
from infra.address_wall import Blocked, check_url, judge
from infra.signing import public_key, signed_headers
from router.ports import PostResult

TOTAL_TIMEOUT_S: Final = 15.0
CONNECT_TIMEOUT_S: Final = 5.0
READ_MAX_BYTES: Final = 64 * 1024
EXCERPT_MAX_BYTES: Final = 4096
RETRY_AFTER_MAX_S: Final = 86_400.0
HEADER_MAX_BYTES: Final = 8190
# Common servers close idle connections after five seconds: let go of them first, so that no POST meets that close.
KEEPALIVE_S: Final = 4.0
# A name server that does not answer holds a thread: as many as it takes that other names still find one.
LOOKUP_THREADS: Final = 128

_FIXED_HEADERS: Final = {
    "accept-encoding": "identity",
    "content-type": "application/json",
    "user-agent": "postroom-webhook/1",
}
_SECONDS: Final = re.compile(r"-?[0-9]{1,15}")

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]


class AddressBlocked(OSError):
    """An address is out of bounds. An `OSError`, because that is what connectors expect of a failed connect."""


class AiohttpSender:
    """`WebhookSender` over one pool of keep-alive connections. Use it as an async context manager.

    `allow_http` and `allow_loopback` are for development. `lookup` resolves (name, port) to addresses; the default asks
    the operating system. `per_host` bounds the connections to one host and port: what exceeds it waits, within its
    own timeout, and holds up no other host. The number of hosts is not bounded: callers bound what is in flight.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        allow_http: bool = False,
        allow_loopback: bool = False,
        lookup: Lookup | None = None,
        per_host: int = 32,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._clock = clock
        self._allow_http = allow_http
        self._allow_loopback = allow_loopback
        self._lookup = lookup
        self._per_host = per_host
        self._ssl_context = ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=_JudgingResolver(self._lookup or _system_lookup(), self._allow_loopback),
            use_dns_cache=False,
            socket_factory=self._judged_socket,
            limit=0,
            limit_per_host=self._per_host,
            keepalive_timeout=KEEPALIVE_S,
            ssl=self._ssl_context or True,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=_FIXED_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            max_line_size=HEADER_MAX_BYTES,
            max_field_size=HEADER_MAX_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def headers(self, secrets: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
        return signed_headers(secrets, message_id, at, body)

    def public_key(self, secret: str) -> str | None:
        return public_key(secret)

    async def post(
        self, *, url: str, secret: str, message_id: str, body: bytes, timeout_s: float = TOTAL_TIMEOUT_S
    ) -> PostResult:
        """Sign the JSON `body` and POST it once, within `timeout_s` seconds from lookup to the end of the answer.

        `secret` may hold several secrets separated by spaces: each signs. The status line is the verdict: what goes
        wrong after it only shortens the excerpt. Raises `ValueError` for a malformed secret or id, and nothing else.
        """
        refusal = self._refusal(url)
        if refusal is not None:
            return PostResult(status=None, latency_ms=0, error=refusal)
        headers = signed_headers(secret.split(), message_id, self._clock.now(), body)
        began = anyio.current_time()
        try:
            return await self._send(url, headers, body, timeout_s, began)
        except (aiohttp.ClientError, OSError) as error:
            return PostResult(status=None, latency_ms=_ms_since(began), error=_code(error))

    def _refusal(self, url: str) -> str | None:
        """Judge literals and names at every attempt: connectors never resolve a literal, and rules may have changed."""
        try:
            check_url(url, allow_http=self._allow_http, allow_loopback=self._allow_loopback)
        except Invalid as refused:
            return "blocked_address" if refused.facts["reason"] in set(Blocked) else "invalid_url"
        return None

    async def _send(self, url: str, headers: dict[str, str], body: bytes, timeout_s: float, began: float) -> PostResult:
        if self._session is None:
            raise RuntimeError("the sender is used outside its context")
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_TIMEOUT_S, timeout_s))
        # `encoded`: the path goes out as it was registered; some receivers sign it.
        target = URL(url, encoded=True)
        async with self._session.post(
            target, data=body, headers=headers, timeout=timeout, allow_redirects=False
        ) as response:
            latency_ms = _ms_since(began)
            return PostResult(
                status=response.status,
                latency_ms=latency_ms,
                error="redirect_not_followed" if 300 <= response.status < 400 else None,
                retry_after_s=parse_retry_after(response.headers.get("retry-after"), self._clock.now()),
                excerpt=escape(await _read_start(response)),
            )

    def _judged_socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """Judge once more where no parser stands between: this is the address the socket connects to."""
        family, kind, protocol, _, address = info
        _require_allowed([str(address[0])], self._allow_loopback)
        return socket.socket(family, kind, protocol)


class _JudgingResolver(AbstractResolver):
    """Resolves a name and lets its addresses pass only if all of them may be connected to."""

    def __init__(self, lookup: Lookup, allow_loopback: bool) -> None:
        self._lookup = lookup
        self._allow_loopback = allow_loopback

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = await self._lookup(host, port)
        if not addresses:
            raise OSError(f"{host} has no address")
        _require_allowed(addresses, self._allow_loopback)
        return [_resolved(host, address, port) for address in addresses]

    async def close(self) -> None:
        return


def _require_allowed(addresses: Sequence[str], allow_loopback: bool) -> None:
    for address in addresses:
        reason = judge(address, allow_loopback=allow_loopback)
        if reason is not None:
            raise AddressBlocked(reason)


def _resolved(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)


def _system_lookup() -> Lookup:
    """Ask `getaddrinfo` in threads of our own: the event loop's few are shared with everything else that blocks."""
    limiter = CapacityLimiter(LOOKUP_THREADS)

    async def lookup(host: str, port: int) -> Sequence[str]:
        found = await anyio.to_thread.run_sync(_getaddrinfo, host, port, abandon_on_cancel=True, limiter=limiter)
        return list(dict.fromkeys(found))

    return lookup


def _getaddrinfo(host: str, port: int) -> list[str]:
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


# In this order: the special before the general.
_CODES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiohttp.InvalidURL, "invalid_url"),
    (aiohttp.ClientConnectorDNSError, "dns_failed"),
    (TimeoutError, "timeout"),
    (aiohttp.ClientSSLError, "tls_failed"),
    (ssl.SSLError, "tls_failed"),
    (aiohttp.ClientConnectorError, "connect_failed"),
    (aiohttp.ClientError, "bad_response"),
    (OSError, "bad_response"),
)


def _code(error: aiohttp.ClientError | OSError) -> str:
    """The stable code of a POST that got no status line."""
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, AddressBlocked):
        return "blocked_address"
    return next(code for kind, code in _CODES if isinstance(error, kind))


async def _read_start(response: aiohttp.ClientResponse) -> bytes:
    """Read the body to its end or to 64 KiB, whichever comes first, and keep its first 4 KiB.

    More is read than kept because only a connection whose answer was read to the end can be used again.
    """
    kept, n_read = bytearray(), 0
    try:
        while n_read < READ_MAX_BYTES and (chunk := await response.content.read(READ_MAX_BYTES - n_read)):
            n_read += len(chunk)
            kept += chunk[: EXCERPT_MAX_BYTES - len(kept)]
    except (aiohttp.ClientError, OSError):
        # The receiver has answered with its status; a body that breaks off takes nothing back.
        response.close()
    if not response.content.at_eof():
        response.close()
    return bytes(kept)


def escape(raw: bytes) -> str:
    """Text that is safe in a log and on a terminal: what is not printable is escaped; at most 4 KiB of UTF-8."""
    text = raw.decode(errors="backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown.encode()[:EXCERPT_MAX_BYTES].decode(errors="ignore")


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds a receiver asks us to wait, within 0 and one day; None if `value` is neither seconds nor an HTTP date."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return _clamped(float(value))
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return _clamped(((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())


def _clamped(seconds: float) -> float:
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S)


def _ms_since(began: float) -> int:
    return round((anyio.current_time() - began) * 1000)
