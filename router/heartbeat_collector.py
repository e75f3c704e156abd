"""Monitors' heartbeats, collected for a moment and noted many at a time.

    hear ─▶ waiting, as bytes ─▶ read and proved ─▶ the newest beat of each session ─▶ noted, every `NOTED_EVERY_S`

What waits is bounded: when more comes than can be read or noted, the oldest is dropped, for every monitor says the same
again in a moment. Instants are fixed when a message arrives, so nothing becomes younger by waiting.
"""

from collections import deque
from itertools import islice
from typing import Any, Final

import anyio
import structlog
from prometheus_client import CollectorRegistry, Counter

from contracts.clock import Clock
from contracts.errors import Unavailable
from contracts.heartbeats import MESSAGE_MAX_BYTES
from router.heartbeats import Beats, Dropped, epoch_ms, read_beats
from router.ports import HeldSessions, SessionNotes

log = structlog.get_logger(__name__)

NOTED_EVERY_S: Final = 0.2
WAITING_MESSAGES: Final = 50_000
WAITING_BYTES: Final = 32 * 1024 * 1024
UNNOTED_SESSIONS: Final = 200_000
SESSIONS_PER_NOTE: Final = 5_000
MESSAGES_PER_TURN: Final = 100
BYTES_PER_TURN: Final = 64_000
"""What is read before others have their turn: two or three milliseconds of work."""
TOLD_AGAIN_AFTER_MS: Final = 60_000
"""Who holds which sessions is told when it changes, and so often for the store not to forget it."""
REMEMBERED_PARTS: Final = 100_000
NEVER_TOLD: Final = (None, 0)


class HeartbeatMetrics:
    """What monitors say over the broker, and what of it was dropped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.messages = Counter("postroom_heartbeat_messages", "Messages of monitors read.", registry=registry)
        self.noted = Counter("postroom_session_beats_noted", "Beats of sessions noted.", registry=registry)
        self.dropped = Counter(
            "postroom_heartbeats_dropped", "Messages, or sessions in them, dropped.", ["reason"], registry=registry
        )


class HeartbeatCollector:
    """Notes while `run` runs; `flush` notes at once what was heard."""

    def __init__(
        self,
        *,
        notes: SessionNotes,
        secret: bytes,
        clock: Clock,
        metrics: HeartbeatMetrics,
        waiting_messages: int = WAITING_MESSAGES,
        unnoted_sessions: int = UNNOTED_SESSIONS,
    ) -> None:
        self._notes = notes
        self._secret = secret
        self._clock = clock
        self._metrics = metrics
        self._waiting_messages = waiting_messages
        self._unnoted_sessions = unnoted_sessions
        self._waiting: deque[tuple[int, str, bytes]] = deque()
        self._waiting_bytes = 0
        self._seen: dict[str, int] = {}
        self._held: dict[tuple[str, int], HeldSessions] = {}
        self._told: dict[tuple[str, int], tuple[int, int]] = {}
        self._one_at_a_time = anyio.Lock()

    def hear(self, subject: str, payload: bytes) -> None:
        """Take one message as it arrived. Never blocks, never raises."""
        if len(payload) > MESSAGE_MAX_BYTES:
            self._dropped(Dropped.OVERSIZED)
            return
        self._waiting.append((epoch_ms(self._clock.now()), subject, payload))
        self._waiting_bytes += len(payload)
        while len(self._waiting) > self._waiting_messages or self._waiting_bytes > WAITING_BYTES:
            self._take()
            self._dropped("too_many_messages")

    async def run(self) -> None:
        """Note what is heard until cancelled."""
        while True:
            await anyio.sleep(NOTED_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Note what was heard. What the store cannot take now is kept for the next time."""
        async with self._one_at_a_time:
            while self._waiting:
                self._read_some()
                if len(self._seen) >= SESSIONS_PER_NOTE and not await self._note():
                    return
                await anyio.lowlevel.checkpoint()
            await self._note()

    def _take(self) -> tuple[int, str, bytes]:
        taken = self._waiting.popleft()
        self._waiting_bytes -= len(taken[2])
        return taken

    def _read_some(self) -> None:
        enough, read = self._waiting_bytes - BYTES_PER_TURN, 0
        while self._waiting and read < MESSAGES_PER_TURN and self._waiting_bytes > enough:
            read += 1
            heard_at_ms, subject, payload = self._take()
            beats = read_beats(subject, payload, self._secret, heard_at_ms)
            if isinstance(beats, Dropped):
                self._dropped(beats)
            else:
                self._collect(beats, heard_at_ms)
        self._metrics.messages.inc(read)

    def _collect(self, beats: Beats, heard_at_ms: int) -> None:
        if beats.forged:
            self._dropped("forged", beats.forged)
        if not beats.seen:
            return
        self._seen.update(beats.seen)
        if len(self._seen) > self._unnoted_sessions:
            self._dropped("not_noted", _forget_oldest(self._seen, self._unnoted_sessions))
        place, sessions = (beats.monitor_id, beats.part), tuple(beats.seen)
        fingerprint, (told, told_at_ms) = hash(sessions), self._told.get(place, NEVER_TOLD)
        if fingerprint != told or heard_at_ms - told_at_ms > TOLD_AGAIN_AFTER_MS:
            self._told[place] = (fingerprint, heard_at_ms)
            self._held[place] = HeldSessions(monitor_id=beats.monitor_id, part=beats.part, session_ids=sessions)

    async def _note(self) -> bool:
        """Note what was collected; when that fails, what was collected meanwhile is newer and wins."""
        seen, held = self._seen, self._held
        self._seen, self._held = {}, {}
        if not seen:
            return True
        try:
            await self._notes.note(seen, held.values())
        except Unavailable as error:
            self._seen, self._held = seen | self._seen, held | self._held
            log.warning("heartbeats_not_noted", sessions=len(self._seen), reason=error.message)
            return False
        self._metrics.noted.inc(len(seen))
        _forget_oldest(self._told, REMEMBERED_PARTS)
        return True

    def _dropped(self, reason: str, how_many: int = 1) -> None:
        self._metrics.dropped.labels(str(reason)).inc(how_many)


def _forget_oldest(kept: dict[Any, Any], most: int) -> int:
    """Drop what was put in first; returns how many."""
    too_many = max(0, len(kept) - most)
    for name in list(islice(kept, too_many)):
        del kept[name]
    return too_many
