"""Writes digests into the log of events: each once, at the end of its period, by whichever router comes first.

    who asks for digests? ──▶ newest digest ──▶ what was delivered behind it, in closed periods ──▶ append,
                                    ▲                                     if the log still ends where we know it
                                    └── otherwise again: another router's digest, or somebody else's event ◀──┘

The log is all there is to remember: a router that starts goes on behind the newest digest, and one that was outrun
finds nothing left to tell. Subscribers are then told as of any other event.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import random
from typing import Final

import anyio
import structlog

from contracts.clock import Clock
from contracts.errors import Stale, Unavailable
from contracts.subscriptions import Subscription
from contracts.tenant_events import EventFilter, EventPage, EventType, StoredEvent
from router.digests import PERIOD, Bundle, asks_for_digests, begins_behind, bundled, digest, start_of, told_before
from router.ports import DigestBook, Directory, EventLog
from router.store_ports import SubscriptionStore

GRACE_S: Final = 2.0
"""How long after the end of a period it is closed: the log lags behind the ledger by a commit or two."""
PAGE: Final = 500

log = structlog.get_logger("router.digester")


class Digester:
    """One router's digester. `run` returns when cancelled."""

    def __init__(
        self,
        *,
        log: EventLog,
        book: DigestBook,
        store: SubscriptionStore,
        directory: Directory,
        clock: Clock,
        period: timedelta = PERIOD,
        grace_s: float = GRACE_S,
    ) -> None:
        self._log = log
        self._book = book
        self._store = store
        self._directory = directory
        self._clock = clock
        self._period = period
        self._grace_s = grace_s
        self._read_up_to: dict[str, int] = {}
        """By agent: the sequence up to which nothing is left to tell, so that nobody reads the same again."""

    async def run(self) -> None:
        while True:
            try:
                await self.close_periods()
            except Unavailable as error:
                log.warning("digests_postponed", reason=error.code)
                await anyio.sleep(error.retry_after_s)
            else:
                await anyio.sleep(self._until_next_close())

    async def close_periods(self) -> int:
        """Tell what was delivered in all periods that are over; how many digests were written."""
        closed_at = start_of(self._clock.now() - timedelta(seconds=self._grace_s), self._period)
        written = 0
        for agent_id in await self._store.agents():
            wanted = [each for each in (await self._store.of_agent(agent_id)).items if asks_for_digests(each)]
            if wanted and await self._is_there(agent_id):
                written += await self._tell(agent_id, wanted, closed_at)
        return written

    async def _tell(self, agent_id: str, wanted: Sequence[Subscription], closed_at: datetime) -> int:
        told, is_more = 0, True
        while is_more:
            newest = await self._book.newest(wanted[0].owner, agent_id)
            after = max(begins_behind(wanted, newest), self._read_up_to.get(agent_id, 0))
            page = await self._delivered(wanted[0].owner, agent_id, after)
            events = told_before(page.events, closed_at)
            bundles = bundled(events, newest, self._period)
            if bundles and not await self._append(bundles, wanted[0].owner, agent_id, newest):
                continue
            told += len(bundles)
            if events:
                self._read_up_to[agent_id] = events[-1].seq
            is_more = page.has_more and len(events) == len(page.events)
        return told

    async def _delivered(self, owner: str, agent_id: str, after: int) -> EventPage:
        wanted = EventFilter(owner=owner, agent_id=agent_id, type=EventType.MESSAGE_DELIVERED)
        return await self._log.read(wanted, after=after, limit=PAGE)

    async def _append(self, bundles: Sequence[Bundle], owner: str, agent_id: str, newest: StoredEvent | None) -> bool:
        """Append the digests of these bundles; False when somebody has written one behind `newest`."""
        while True:
            # In this order: whatever is appended behind the look at the newest digest fails our expectation.
            place = await self._log.place()
            found = await self._book.newest(owner, agent_id)
            if (found and found.seq) != (newest and newest.seq):
                return False
            at = self._clock.now()
            digests = [
                digest(each, owner=owner, agent_id=agent_id, period=self._period, at=at, ledger_seq=place.ledger_seq)
                for each in bundles
            ]
            try:
                await self._log.append(digests, place)
            except Stale:
                continue
            log.info("digests_written", agent_id=agent_id, digests=len(digests))
            return True

    async def _is_there(self, agent_id: str) -> bool:
        agent = await self._directory.agent(agent_id)
        return agent is not None and agent.deleted_at is None

    def _until_next_close(self) -> float:
        """Seconds; spread, so that several routers do not read the same at the same time."""
        now = self._clock.now()
        grace = timedelta(seconds=self._grace_s)
        closes_at = start_of(now - grace, self._period) + self._period + grace
        return (closes_at - now).total_seconds() + random() * self._grace_s  # noqa: S311 - nothing secret
