"""Writes the log of tenants' events: every ledger event once, in order, by whichever router is at it.

    place ──▶ follow the ledger behind it ──▶ derive ──▶ append, if the log still ends where we know it
      ▲                                                     │ somebody else's events: a plain one between ▶ again
      └────────── stand by, while another router writes ◀───┘ derived ones ▶ stand by

The last record of each append names the ledger sequence it comes from, and all records of one ledger event are appended
together: the newest one says where to go on, whoever goes on.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from random import random
from typing import Final

import anyio
import structlog

from contracts.errors import IllegalEvent, PostroomError, Stale, Unavailable
from contracts.tenant_events import LogPlace, TenantEvent
from router.derivation import Facts, derive, facts_before, is_silent
from router.metrics import EventLogMetrics
from router.ports import EventLog, Ledger, LedgerTail, Moved

MAX_BATCH: Final = 1_000
"""What the broker takes in one atomic batch."""
MIN_INTERVAL_S: Final = 0.03
"""Between two appends. Each atomic batch costs the broker about 4 ms of processor time besides its records."""
CALM: Final = 60
"""So many ledger events may come within an interval before it is made longer in proportion."""
LONGEST: Final = 4.0
"""The longest interval, in shortest ones."""
BEHIND: Final = 500
"""A reading of the ledger yields so many at once when more are waiting."""
STAND_BY_S: Final = 1.0
MAX_REMEMBERED: Final = 50_000

log = structlog.get_logger("router.event_log")


class _Outrun(Exception):
    """Another router has written what we were about to write."""


class EventWriter:
    """One router's writer. `run` returns when cancelled."""

    def __init__(
        self,
        *,
        log: EventLog,
        ledger: Ledger,
        tail: LedgerTail,
        metrics: EventLogMetrics,
        stand_by_s: float = STAND_BY_S,
        min_interval_s: float = MIN_INTERVAL_S,
    ) -> None:
        self._log = log
        self._ledger = ledger
        self._tail = tail
        self._metrics = metrics
        self._stand_by_s = stand_by_s
        self._min_interval_s = min_interval_s
        self._memory = _Memory(ledger)

    async def run(self) -> None:
        while True:
            try:
                await self._write_until_outrun()
                self._metrics.stands_by()
                await self._stand_by()
            except Unavailable as error:
                self._metrics.is_interrupted(is_full=error.code == "event_log_full")
                log.warning("event_log_interrupted", reason=error.code)
                await anyio.sleep(error.retry_after_s)

    async def _write_until_outrun(self) -> None:
        try:
            await self._write_from(await self._log.place())
        except _Outrun:
            log.info("event_log_left_to_another")

    async def _write_from(self, place: LogPlace) -> None:
        self._memory.clear()
        self._metrics.begins(place.ledger_seq)
        log.info("event_log_followed", ledger_seq=place.ledger_seq)
        async with aclosing(self._tail.follow(place.ledger_seq)) as batches:
            async for batch in batches:
                if batch:
                    place = await self._write(batch, place)

    async def _write(self, batch: Sequence[Moved], place: LogPlace) -> LogPlace:
        self._metrics.takes(batch[0].stored.event.at)
        pause_s = 0.0
        for events in portions(await self._derived(batch)):
            await anyio.sleep(pause_s)
            place = await self._append(events, place)
            self._metrics.has_written(len(events))
            pause_s = self._min_interval_s
        self._metrics.has_reached(batch[-1].stored.seq)
        await anyio.sleep(pause_s * pace(len(batch)))
        return place

    async def _derived(self, batch: Sequence[Moved]) -> list[list[TenantEvent]]:
        """The tenant events of each ledger event; a record nobody understands must not hide those behind it."""
        found = []
        for moved in batch:
            if is_silent(moved.stored.event):
                continue
            try:
                await self._memory.prepare(moved)
                found.append(self._memory.take_in(moved))
            except Unavailable:
                raise
            except (PostroomError, ValueError) as error:
                log.exception("event_not_derived", message_ulid=moved.ulid, seq=moved.stored.seq, exc_info=error)
        return found

    async def _append(self, events: Sequence[TenantEvent], place: LogPlace) -> LogPlace:
        while True:
            try:
                return await self._log.append(events, place)
            except Stale:
                found = await self._log.place()
            if found.ledger_seq != place.ledger_seq:
                raise _Outrun
            place = found

    async def _stand_by(self) -> None:
        """Wait for as long as another router writes: until the log stands still although the ledger goes on."""
        before = (await self._log.place()).ledger_seq
        while True:
            # Spread, so that two who wait do not go on together.
            await anyio.sleep(self._stand_by_s * (0.75 + random() / 2))  # noqa: S311 - nothing secret
            now = (await self._log.place()).ledger_seq
            if now == before and await self._tail.last_seq() > now:
                return
            before = now


def pace(n_taken: int) -> float:
    """How many intervals to wait after so many ledger events: the more come, the longer, but not to fall behind."""
    return 1.0 if n_taken >= BEHIND else min(max(1.0, n_taken / CALM), LONGEST)


def portions(derived: Sequence[Sequence[TenantEvent]], at_most: int = MAX_BATCH) -> Iterator[list[TenantEvent]]:
    """Events in portions of about `at_most`; those of one ledger event stay together."""
    portion: list[TenantEvent] = []
    for events in derived:
        if portion and len(portion) + len(events) > at_most:
            yield portion
            portion = []
        portion += events
    if portion:
        yield portion


class _Memory:
    """The facts of the messages that moved lately, as of the last event taken in; others are read from the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._facts: OrderedDict[str, Facts] = OrderedDict()

    def clear(self) -> None:
        self._facts.clear()

    async def prepare(self, moved: Moved) -> None:
        """Have the facts an event needs at hand."""
        if moved.ulid in self._facts or moved.stored.event.type == "accepted":
            return
        history = await self._ledger.load(moved.ulid)
        if history is None:
            raise IllegalEvent("none", "the message is gone")
        facts = facts_before(history, moved.stored.seq)
        if facts is not None:
            self._facts[moved.ulid] = facts

    def take_in(self, moved: Moved) -> list[TenantEvent]:
        after, events = derive(self._facts.pop(moved.ulid, None), moved.ulid, moved.stored)
        self._facts[moved.ulid] = after
        if len(self._facts) > MAX_REMEMBERED:
            self._facts.popitem(last=False)
        return events
