"""HTTP/1.1 as uvicorn speaks it, with the bounds it does not have: how long a request's head may be, and may take."""

import asyncio
from typing import ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from contracts.errors import Malformed
from gateway.joined_writes import JoinedWrites
from gateway.problems import problem_of

MAX_HEAD_BYTES: Final = 32_768


def _bare_answer(error: Malformed) -> bytes:
    """The answer to what never became a request, as bytes: the problem every other refusal is."""
    problem = problem_of(error, "")
    headers = {"connection": "close", **dict(problem.headers)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    title = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}[problem.status_code]
    return f"HTTP/1.1 {problem.status_code} {title}\r\n{lines}\r\n".encode() + bytes(problem.body)


_NOT_HTTP: Final = _bare_answer(Malformed("malformed_request", "These bytes are not a request we can read."))
_TOO_SLOW: Final = _bare_answer(Malformed("request_timeout", "The request did not arrive in time.", status=408))
_TOO_LONG: Final = _bare_answer(
    Malformed("head_too_large", f"The head of a request may have {MAX_HEAD_BYTES} bytes.", status=431)
)


class BoundedHttp(HttpToolsProtocol):
    """Ends a connection whose request line and headers go on and on, in bytes or in time.

    The parser would keep all of it in memory, and a connection that says nothing for as long as it likes.
    """

    head_timeout_s: ClassVar[float] = 30
    _in_head = False
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        continues_head = self._in_head
        super().data_received(data)
        if not self._in_head:
            return
        if self._head_timer is None:
            self._expect_head()
        # What arrived together with the end of the message before is not counted: it is one read at most.
        self._head_bytes = self._head_bytes + len(data) if continues_head else 0
        if self._head_bytes > MAX_HEAD_BYTES:
            self._end(_TOO_LONG)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_is_here()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._end(_NOT_HTTP)

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._end, _TOO_SLOW)

    def _head_is_here(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
