"""Workers that say they live, in Redis: one hash per owner, field = worker id, value = its beats and handlers.

A worker is forgotten a day after its last beat, and the whole hash with the last of them.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic_core import from_json, to_json

from contracts.clock import Clock
from contracts.errors import TooMany
from gateway.ports import WorkerSeen
from infra.redis_connection import Argument, RedisConnection, load_script

BEAT: Final = load_script("worker_beat")
KEPT_FOR: Final = timedelta(hours=24)
MAX_WORKERS: Final = 1_000
EPOCH: Final = datetime.fromtimestamp(0, UTC)
MILLISECOND: Final = timedelta(milliseconds=1)


class RedisWorkers:
    """The gateway's `Workers`. Instants are the clock's, in milliseconds."""

    def __init__(self, connection: RedisConnection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    async def beat(self, owner: str, worker_id: str, handlers: tuple[str, ...] | None) -> datetime:
        now = self._clock.now()
        about = b"" if handlers is None else to_json(handlers)
        args: list[Argument] = [worker_id, (now - EPOCH) // MILLISECOND, about, MAX_WORKERS, KEPT_FOR // MILLISECOND]
        if not await self._connection.run(BEAT, [self._key(owner)], args):
            raise TooMany("too_many_workers", f"An owner may have {MAX_WORKERS} workers a day.")
        return now

    async def of_owner(self, owner: str) -> list[WorkerSeen]:
        """All that were heard of within a day, by name."""
        flat = await self._connection.command("HGETALL", self._key(owner))
        # The client answers with pairs or with a mapping, by its version.
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        oldest = self._clock.now() - KEPT_FOR
        seen = [_seen(worker_id, value) for worker_id, value in pairs]
        return sorted((each for each in seen if each.last_seen_at >= oldest), key=lambda each: each.worker_id)

    async def forget(self, owner: str, worker_id: str) -> bool:
        return bool(await self._connection.command("HDEL", self._key(owner), worker_id))

    def _key(self, owner: str) -> str:
        return self._connection.key(f"workers:{owner}")


def _seen(worker_id: bytes, value: bytes) -> WorkerSeen:
    first, last, handlers = value.split(b" ", 2)
    return WorkerSeen(
        worker_id=worker_id.decode(),
        first_seen_at=EPOCH + int(first) * MILLISECOND,
        last_seen_at=EPOCH + int(last) * MILLISECOND,
        handlers=tuple(from_json(handlers)),
    )
