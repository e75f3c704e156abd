"""One keep-alive HTTP/1.1 connection with at most one request in flight, parsed no further than needed.

A client library costs more processor time per request than the gateway does; on a small machine it would be the thing
measured. Only what our servers send is understood: a status line and a `Content-Length`. Everything else is a failure.
"""

import asyncio
from typing import Final, Protocol, cast

HEAD_END: Final = b"\r\n\r\n"
LENGTH: Final = b"content-length:"
STATUS: Final = slice(9, 12)
"""`HTTP/1.1 201 Created`"""


class Listener(Protocol):
    """Who owns the connection: told of each answer, and once of the end when a request was in flight."""

    def on_answer(self, connection: "HttpConnection", status: int, body: bytes) -> None: ...

    def on_lost(self, connection: "HttpConnection", fault: str) -> None: ...


class HttpConnection(asyncio.Protocol):
    """Sends one request at a time. `number` and `since_s` belong to the request in flight and to its sender."""

    __slots__ = ("_buffer", "_busy", "_listener", "_transport", "number", "since_s")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._busy = False
        self.number = 0
        self.since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes) -> None:
        assert self._transport is not None
        assert not self._busy
        self._busy = True
        if self._transport.is_closing():
            self._lose("connection lost")
        else:
            self._transport.write(request)

    def close(self) -> None:
        self._busy = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        head_length = data.find(HEAD_END) + len(HEAD_END)
        if head_length < len(HEAD_END):
            self._buffer = data
            return
        length = content_length(data[:head_length])
        if length is None:
            self._lose("answer without Content-Length")
        elif len(data) < head_length + length:
            self._buffer = data
        else:
            self._answered(data, head_length, length)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose("connection lost")

    def _answered(self, data: bytes, head_length: int, length: int) -> None:
        if not self._busy or len(data) > head_length + length or not data[STATUS].isdigit():
            self._lose("answer out of order")
            return
        self._buffer = b""
        self._busy = False
        self._listener.on_answer(self, int(data[STATUS]), data[head_length:])

    def _lose(self, fault: str) -> None:
        was_busy = self._busy
        self.close()
        if was_busy:
            self._listener.on_lost(self, fault)


def content_length(head: bytes) -> int | None:
    """The number behind `Content-Length`, in whatever case it is written; None when there is none."""
    at = head.find(LENGTH)
    if at < 0:
        head = head.lower()
        at = head.find(LENGTH)
    if at < 0:
        return None
    digits = head[at + len(LENGTH) : head.index(b"\r\n", at)].strip()
    return int(digits) if digits.isdigit() else None
