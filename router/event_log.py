"""Writes the log of tenants' events: every ledger event once, in order, by whichever router is at it.

    place ──▶ follow the ledger behind it ──▶ derive ──▶ append, if the log still ends where we know it
      ▲                                                     │ somebody else's events: a plain one between ▶ again
      └────────── stand by, while another router writes ◀───┘ derived ones ▶ stand by

Each derived record carries the ledger sequence it comes from, and all records of one ledger event are appended
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
from router.derivation import Facts, derive, facts_before
from router.ports import EventLog, Ledger, LedgerTail, Moved

MAX_BATCH: Final = 500
MIN_INTERVAL_S: Final = 0.02
"""Between two appends: busy, fifty commits a second and no more share the broker's disk with those who send."""
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
        stand_by_s: float = STAND_BY_S,
        min_interval_s: float = MIN_INTERVAL_S,
    ) -> None:
        self._log = log
        self._ledger = ledger
        self._tail = tail
        self._stand_by_s = stand_by_s
        self._min_interval_s = min_interval_s
        self._memory = _Memory(ledger)

    async def run(self) -> None:
        while True:
            try:
                await self._write_until_outrun()
                await self._stand_by()
            except Unavailable as error:
                log.warning("event_log_interrupted", reason=error.code)
                await anyio.sleep(error.retry_after_s)

    async def _write_until_outrun(self) -> None:
        try:
            await self._write_from(await self._log.place())
        except _Outrun:
            log.info("event_log_left_to_another")

    async def _write_from(self, place: LogPlace) -> None:
        self._memory.clear()
        log.info("event_log_followed", ledger_seq=place.ledger_seq)
        async with aclosing(self._tail.follow(place.ledger_seq)) as batches:
            async for batch in batches:
                for events in portions(await self._derived(batch)):
                    place = await self._append(events, place)
                    await anyio.sleep(self._min_interval_s)

    async def _derived(self, batch: Sequence[Moved]) -> list[list[TenantEvent]]:
        """The tenant events of each ledger event; a record nobody understands must not hide those behind it."""
        found = []
        for moved in batch:
            try:
                found.append(await self._memory.take_in(moved))
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

    async def take_in(self, moved: Moved) -> list[TenantEvent]:
        seq = moved.stored.seq
        facts = self._facts.pop(moved.ulid, None)
        if facts is None and moved.stored.event.type != "accepted":
            facts = await self._read(moved.ulid, seq)
        after, events = derive(facts, moved.ulid, moved.stored)
        self._facts[moved.ulid] = after
        if len(self._facts) > MAX_REMEMBERED:
            self._facts.popitem(last=False)
        return events

    async def _read(self, ulid: str, seq: int) -> Facts | None:
        history = await self._ledger.load(ulid)
        if history is None:
            raise IllegalEvent("none", "the message is gone")
        return facts_before(history, seq)
