"""The outermost layer, plain ASGI: request id, size of the body, time taken, and the one place that answers errors."""

import itertools
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.errors import Malformed, Rejected, Unavailable
from gateway.metrics import Metrics
from gateway.problems import problem_of, too_large

MAX_BODY_BYTES: Final = 131_072
CLIENT_LEFT: Final = 499
_METHODS: Final = frozenset({"GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS"})
# No CORS header is ever sent: a web page of another origin has no business here.
_FIXED_HEADERS: Final = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
# Length and type: an answer with no others says nothing of caching itself.
_USUAL_HEADERS: Final = 2
log = structlog.get_logger()


class RequestIds:
    """Numbers the requests of this process; no two processes share their first half."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(5)
        self._numbers = itertools.count(1)

    def __call__(self) -> str:
        return f"{self._process}-{next(self._numbers):x}"


class Edge:
    """Wraps the app. Nothing inside it has to know of request ids, limits, metrics or error bodies."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        request_ids: Callable[[], str],
        max_body_bytes: int = MAX_BODY_BYTES,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._timer = timer
        self._request_ids = request_ids
        self._log = log.bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = self._timer()
        exchange = _Exchange(send, self._request_ids())
        self._metrics.in_flight += 1
        try:
            await self._app(scope, self._bounded(scope, receive), exchange.send)
        except Exception as error:  # noqa: BLE001 - the edge: every error becomes an answer here, and nowhere else
            await self._answer(error, scope, receive, exchange)
        finally:
            self._metrics.in_flight -= 1
            self._note(scope, exchange, self._timer() - started)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` as it is where the announced length is allowed, else counting; raises when it is too much."""
        announced = None
        for name, value in scope["headers"]:
            if name == b"content-length":
                announced = value
            elif name == b"content-encoding" and value.lower() != b"identity":
                raise Malformed("unsupported_encoding", "Send the body without Content-Encoding.", status=415)
        if announced is None:
            return _counting(receive, self._max_body_bytes)
        if not announced.isdigit() or len(announced) > 12 or int(announced) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        # The server behind us ends the body at its announced length.
        return receive

    async def _answer(self, error: Exception, scope: Scope, receive: Receive, exchange: "_Exchange") -> None:
        if isinstance(error, Rejected | Unavailable):
            self._metrics.refused(error.code)
        else:
            self._metrics.refused("internal_error")
            self._log.error("unexpected_error", request_id=exchange.request_id, path=scope["path"], exc_info=error)
        if exchange.status is None:
            await problem_of(error, exchange.request_id)(scope, receive, exchange.send)

    def _note(self, scope: Scope, exchange: "_Exchange", seconds: float) -> None:
        route = template_of(scope)
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._metrics.request(method, route, exchange.status or CLIENT_LEFT, seconds)
        if self._log.is_enabled_for(logging.DEBUG):
            self._log.debug(
                "request",
                request_id=exchange.request_id,
                method=method,
                route=route,
                status=exchange.status,
                duration_ms=round(seconds * 1000, 3),
            )


class _Exchange:
    """One answer on its way out: its status, and the headers every answer bears."""

    __slots__ = ("_send", "request_id", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = message.get("headers", ())
            fixed = _FIXED_HEADERS if len(own) <= _USUAL_HEADERS else _not_said_yet(own)
            message["headers"] = [*own, *fixed, (b"x-request-id", self.request_id.encode())]
        await self._send(message)


def _not_said_yet(own: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    said = {name.lower() for name, _ in own}
    return [header for header in _FIXED_HEADERS if header[0] not in said]


def template_of(scope: Scope) -> str:
    """The path of the route that took the request, with its placeholders: a label of few values."""
    route: Any = scope.get("route")
    path = getattr(route, "path", None)
    return path if isinstance(path, str) else "unmatched"


def _counting(receive: Receive, limit_bytes: int) -> Receive:
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit_bytes:
            raise too_large(limit_bytes)
        return message

    return counted
