"""Server-sent events: frames as bytes, and the response that sends them until somebody has had enough.

A stream ends when the client hangs up, when its time is over, when its key no longer counts, and when the program
ends; always with a proper end of the body, so that a client comes back with `Last-Event-ID` and misses nothing.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import anyio
import structlog
from pydantic_core import to_json
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contracts.clock import Clock
from contracts.errors import Malformed, TooMany, Unauthenticated, Unavailable
from gateway.holds import Holds

KEEP_ALIVE: Final = timedelta(seconds=15)
CHECK_EVERY: Final = timedelta(seconds=2)
MAX_PER_OWNER: Final = 100
LAST_STREAM_S: Final = 3_600
LAST_WORD_S: Final = 1.0
"""How long a stream's proper end may take to write."""
RECONNECT_MS: Final = 1_000
MAX_SEQ: Final = 2**63 - 1
log = structlog.get_logger()

Frames = AsyncGenerator[bytes, None]


def frame(seq: int, kind: str, data: Any) -> bytes:
    """One event. JSON has no line breaks of its own, so its text is one `data` line."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, kind.encode(), to_json(data))


def opening(seq: int) -> bytes:
    """The first words of a stream: where it begins, for a client that is cut off before its first event."""
    return b"retry: %d\nid: %d\n\n" % (RECONNECT_MS, seq)


def last_event_id(headers: Headers) -> int | None:
    """Where a client goes on; None when it does not say. Raises `Malformed` (`invalid_cursor`)."""
    text = headers.get("last-event-id")
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) > MAX_SEQ:
        raise Malformed("invalid_cursor", "Last-Event-ID is the id of an event of this stream.", field="Last-Event-ID")
    return int(text)


class Streams:
    """The open streams of one gateway, counted by owner."""

    def __init__(self, *, holds: Holds, clock: Clock, max_per_owner: int = MAX_PER_OWNER) -> None:
        self.holds = holds
        self.clock = clock
        self._max_per_owner = max_per_owner
        self._open: dict[str, int] = {}

    @contextmanager
    def place(self, owner: str) -> Iterator[None]:
        """Count one more while inside. Raises `TooMany` (`too_many_streams`)."""
        n_open = self._open.get(owner, 0)
        if n_open >= self._max_per_owner:
            raise TooMany("too_many_streams", f"An owner may have {self._max_per_owner} streams open.")
        self._open[owner] = n_open + 1
        try:
            yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]


class EventSource(Response):
    """A stream of frames; an empty one gives the response the occasion to look around.

    `check` raises `Unauthenticated` once the caller's key no longer counts.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: Callable[[], Frames],
        *,
        streams: Streams,
        owner: str,
        check: Callable[[], Awaitable[object]],
        for_s: float = LAST_STREAM_S,
    ) -> None:
        super().__init__(headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._frames = frames
        self._streams = streams
        self._owner = owner
        self._check = check
        self._for_s = for_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.place(self._owner):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with self._streams.holds.at_most(self._for_s, receive):
                await self._send_frames(send)
            # Bounded: to a client that has stopped reading nothing can be written, and it would keep its place.
            with anyio.move_on_after(LAST_WORD_S, shield=True):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_frames(self, send: Send) -> None:
        clock = self._streams.clock
        sent_at = checked_at = clock.now()
        try:
            async with aclosing(self._frames()) as frames:
                async for content in frames:
                    checked_at = await self._checked(checked_at)
                    if not content and clock.now() - sent_at < KEEP_ALIVE:
                        continue
                    await send({"type": "http.response.body", "body": content or b": \n\n", "more_body": True})
                    sent_at = clock.now()
        except (Unauthenticated, Unavailable) as error:
            log.info("stream_ended", owner=self._owner, code=error.code)

    async def _checked(self, checked_at: datetime) -> datetime:
        now = self._streams.clock.now()
        if now - checked_at < CHECK_EVERY:
            return checked_at
        await self._check()
        return now
