"""A stream of server-sent events as a client reads it: one GET, and frames out of a chunked body.

Like `http_connection`: only what our servers send is understood, and everything else is a failure.
"""

import asyncio
from typing import Final, Protocol, cast

from cli.benchmark.http_connection import HEAD_END, STATUS

LINE_END: Final = b"\r\n"
FRAME_END: Final = b"\n\n"
OK: Final = 200


class Listener(Protocol):
    """Who reads the stream: told of each frame, and once of its end."""

    def on_frame(self, frame: bytes) -> None: ...

    def on_end(self, fault: str) -> None: ...


class SseConnection(asyncio.Protocol):
    """Sends its request as soon as it is connected, then listens until `close`."""

    def __init__(self, request: bytes, listener: Listener) -> None:
        self._request = request
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._head: bytes | None = b""
        self._chunks = ChunkedBody()
        self._text = b""
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def close(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            if HEAD_END not in self._head:
                return
            head, _, data = self._head.partition(HEAD_END)
            self._head = None
            status = int(head[STATUS]) if head[STATUS].isdigit() else 0
            if status != OK:
                self._end(f"stream status {status}")
                return
        self._read(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("stream lost")

    def _read(self, data: bytes) -> None:
        try:
            self._text += self._chunks.feed(data)
        except ValueError:
            self._end("stream is not chunked")
            return
        *frames, self._text = self._text.split(FRAME_END)
        for frame in frames:
            self._listener.on_frame(frame)
        if self._chunks.is_over:
            self._end("stream ended")

    def _end(self, fault: str) -> None:
        if not self._ended:
            self.close()
            self._listener.on_end(fault)


class ChunkedBody:
    """The chunked transfer coding (RFC 9112, 7.1) without extensions and trailers, decoded as it arrives."""

    def __init__(self) -> None:
        self._buffer = b""
        self.is_over = False

    def feed(self, data: bytes) -> bytes:
        """What `data` completes; raises `ValueError` for something else than chunks."""
        self._buffer += data
        content = b""
        while not self.is_over:
            size, separator, rest = self._buffer.partition(LINE_END)
            if not separator:
                break
            length = int(size, 16)
            if len(rest) < length + len(LINE_END):
                break
            content += rest[:length]
            self._buffer = rest[length + len(LINE_END) :]
            self.is_over = length == 0
        return content
