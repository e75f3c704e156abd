"""Rows for queries, written behind the ledger: a bounded queue in memory, flushed to Redis by one task.

    write ──▶ queue, newest row per message ──run: up to `batch_rows` at a time──▶ one script call ──▶ visible
                  │ over the bound: the oldest is dropped, counted, and left to the router's replay
                  ◀── put back when Redis is away

A script writes a row only over an older one, so replays, retries and several writers agree on the newest. The layout is
in `infra/lua/projection_layout.lua`.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio

from contracts.errors import Unavailable
from infra.redis_connection import Argument, RedisConnection, load_script
from router.ports import Row

WRITE: Final = load_script("projection_layout", "projection_write")
MISSING: Final = load_script("projection_layout", "projection_missing")
READ_EPOCH: Final = load_script("projection_layout", "projection_epoch")
SET_EPOCH: Final = load_script("projection_layout", "projection_set_epoch")

EPOCH_KEY: Final = "2:epoch"
"""With the number of the layout: rows of another one are left alone, and all are derived anew from the ledger."""
EPOCH: Final = datetime.fromtimestamp(0, UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
MISSING_HEADS: Final = 1_000
"""Heads per script call: about 5 ms in which the server does nothing else."""
FLUSH_LIMIT_S: Final = 0.5
SETTLE_LIMIT_S: Final = 0.5
STOP_LIMIT_S: Final = 1.0
RETRY_S: Final = 0.25
RETRY_SOONEST_S: Final = 0.02
FAILURES_THAT_TELL: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueBounds:
    """How much may wait for Redis, how much travels at once, and how long a flush lets others join the next one."""

    queue_rows: int = 50_000
    queue_bytes: int = 64 * 1024 * 1024
    batch_rows: int = 256
    batch_bytes: int = 1024 * 1024
    linger_s: float = 0.01


@dataclass(slots=True)
class _Waiting:
    """A queued row and the number of the `write` that brought its message into the queue."""

    ticket: int
    row: Row


class RedisProjection:
    """The router's `Projection`. Nothing is flushed unless somebody runs `run`."""

    def __init__(self, connection: RedisConnection, *, bounds: QueueBounds | None = None) -> None:
        self.dropped = 0
        self._connection = connection
        self._bounds = bounds or QueueBounds()
        self._queue: OrderedDict[str, _Waiting] = OrderedDict()
        self._queue_bytes = 0
        self._tickets = 0
        self._visible = 0
        self._failing = False
        self._wake = anyio.Event()
        self._urgent = anyio.Event()
        self._flushed = anyio.Event()
        self._epoch_seen: int | None = None
        self._rebuild_token = b""

    @property
    def queued(self) -> int:
        return len(self._queue)

    def write(self, row: Row) -> None:
        self._tickets += 1
        self._enqueue(_Waiting(self._tickets, row))
        if not self._wake.is_set():
            self._wake.set()

    async def run(self) -> None:
        """Flush until cancelled; then once more what is left, within a second."""
        try:
            while True:
                await self._wake.wait()
                await self._flush_once()
                await self._pause()
        finally:
            with anyio.move_on_after(STOP_LIMIT_S, shield=True):
                while self._queue and not self._failing:
                    await self._flush_once()

    async def missing(self, heads: Sequence[tuple[str, int]]) -> list[str]:
        stale: list[str] = []
        for start in range(0, len(heads), MISSING_HEADS):
            args = [part for head in heads[start : start + MISSING_HEADS] for part in head]
            answer = await self._connection.run(
                MISSING, self._keys(), [self._connection.prefix, *args], limit_s=FLUSH_LIMIT_S
            )
            stale += [ulid.decode() for ulid in answer]
        return stale

    async def settle(self) -> None:
        target, failures = self._tickets, 0
        with anyio.move_on_after(SETTLE_LIMIT_S):
            # The first failure may be that of a flush that began while the store was still away; a store that is back
            # answers lists, so it is given what it lacks first.
            while self._visible < target and failures < FAILURES_THAT_TELL:
                self._urgent.set()
                await self._flushed.wait()
                failures += self._failing

    async def epoch(self) -> int | None:
        """As the port says. Where the marker is absent, the rebuild begins here: `set_epoch` ends this one only."""
        token = secrets.token_hex(8)
        marker, token_there = await self._connection.run(READ_EPOCH, self._keys(), [self._connection.prefix, token])
        self._epoch_seen = int(marker) if marker else None
        self._rebuild_token = token_there
        return self._epoch_seen

    async def set_epoch(self, seq: int) -> None:
        """Set the marker; setting it back is allowed, it then vouches for less.

        Does nothing when the store was emptied, or lost its last second in a crash, since this projection last looked:
        the marker would vouch for rows that are gone. `epoch` then tells where to begin again.
        """
        seen = "" if self._epoch_seen is None else self._epoch_seen
        args: list[Argument] = [self._connection.prefix, seq, seen, self._rebuild_token]
        if await self._connection.run(SET_EPOCH, self._keys(), args):
            self._epoch_seen = seq
            self._rebuild_token = b""

    async def incarnation(self) -> str:
        """The server's run id: a new one at each start of its process."""
        server = await self._connection.ask(lambda client: client.info("server"))
        return str(server["run_id"])

    def _keys(self) -> list[str]:
        return [self._connection.key(EPOCH_KEY)]

    def _enqueue(self, new: _Waiting) -> None:
        ulid = new.row.ulid
        queued = self._queue.get(ulid)
        if queued is None:
            self._queue[ulid] = new
            self._queue_bytes += len(new.row.view)
        elif queued.row.seq < new.row.seq:
            self._queue_bytes += len(new.row.view) - len(queued.row.view)
            queued.row = new.row
        while len(self._queue) > self._bounds.queue_rows or self._queue_bytes > self._bounds.queue_bytes:
            self._take_oldest()
            self.dropped += 1

    def _take_oldest(self) -> _Waiting:
        _, oldest = self._queue.popitem(last=False)
        self._queue_bytes -= len(oldest.row.view)
        return oldest

    async def _flush_once(self) -> None:
        tickets = self._tickets
        batch = self._take_batch()
        try:
            await self._send(batch)
        except Unavailable:
            self._failing = True
            self._put_back(batch)
        except anyio.get_cancelled_exc_class():
            self._put_back(batch)
            raise
        else:
            self._failing = False
            self._visible = self._first_ticket() - 1 if self._queue else tickets
        finally:
            self._flushed.set()
            self._flushed = anyio.Event()

    def _take_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._queue and len(batch) < self._bounds.batch_rows and size < self._bounds.batch_bytes:
            batch.append(self._take_oldest())
            size += len(batch[-1].row.view)
        if not self._queue:
            self._wake = anyio.Event()
        return batch

    def _put_back(self, batch: Sequence[_Waiting]) -> None:
        for waiting in reversed(batch):
            newer = self._queue.get(waiting.row.ulid)
            if newer is not None:
                newer.ticket = waiting.ticket
            self._enqueue(waiting)
            if waiting.row.ulid in self._queue:
                self._queue.move_to_end(waiting.row.ulid, last=False)
        self._wake.set()

    def _first_ticket(self) -> int:
        return next(iter(self._queue.values())).ticket

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        args: list[Argument] = [self._connection.prefix]
        for waiting in batch:
            args.append(waiting.row.ulid)
            args.append(packed(waiting.row))
        await self._connection.run(WRITE, self._keys(), args, limit_s=FLUSH_LIMIT_S)

    async def _pause(self) -> None:
        """Let the next batch gather, unless somebody waits for it."""
        if self._failing:
            await anyio.sleep(RETRY_SOONEST_S)
            with anyio.move_on_after(RETRY_S - RETRY_SOONEST_S):
                await self._urgent.wait()
        elif len(self._queue) < self._bounds.batch_rows:
            # A bare timer: a cancel scope that ends by its deadline spins for the last part of a millisecond, since
            # the loop counts whole ones, and this one ends so hundreds of times a second.
            timer = asyncio.get_running_loop().call_later(self._bounds.linger_s, self._urgent.set)
            try:
                await self._urgent.wait()
            finally:
                timer.cancel()
        self._urgent = anyio.Event()


def packed(row: Row) -> bytes:
    """A row as it is stored: its header line, then its view."""
    header = (
        f"{row.seq} {row.accept_seq} {row.owner} {row.agent_id} {row.sender_owner} {row.sender_agent_id or '-'}"
        f" {row.channel.value} {row.state.value} {row.thread} {row.priority} {milliseconds(row.accepted_at)}\n"
    )
    return header.encode() + row.view


def milliseconds(at: datetime) -> int:
    """Since 1970, whole ones, as the header line has it. Floating point would be one off now and then."""
    return (at - EPOCH) // MILLISECOND
