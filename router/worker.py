"""What happens later: deadlines, webhooks, offers to sessions that attached, and the projection's repair.

    ledger ──follow──▶ agenda ──due──▶ close_overdue · webhook · offer_waiting
                  └──▶ projection: whatever row is missing is written anew

As many routers as one likes may run: each sees every event, and the ledger's compare-and-set picks who acts.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from contracts.clock import Clock
from contracts.errors import NotFound, Unavailable
from contracts.words import State
from router.agenda import Agenda, Entry
from router.metrics import RouterMetrics
from router.ports import LedgerTail, Moved, Projection
from router.service import Service, Standing
from router.webhooks import Webhooks

TICK_S: Final = 0.05
REPAIR_EVERY_S: Final = 0.5
REPAIR_BATCH: Final = 500
REPAIR_AT_ONCE: Final = 16
BACK_OFF: Final = timedelta(seconds=1)

log = structlog.get_logger("router.worker")


class Worker:
    """One router. `run` returns when cancelled; `caught_up` is set once the ledger has been read to its end."""

    def __init__(
        self,
        *,
        name: str,
        service: Service,
        tail: LedgerTail,
        projection: Projection,
        webhooks: Webhooks,
        attached: AsyncIterator[str],
        clock: Clock,
        metrics: RouterMetrics,
    ) -> None:
        self._name = name
        self._service = service
        self._tail = tail
        self._projection = projection
        self._webhooks = webhooks
        self._attached = attached
        self._clock = clock
        self._metrics = metrics
        self._agenda = Agenda()
        self._heads: dict[str, int] = {}
        self._read_seq = 0
        self._news = anyio.Event()
        self.caught_up = anyio.Event()

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._follow)
            group.start_soon(self._act_when_due, group)
            group.start_soon(self._offer_to_the_attached)
            group.start_soon(self._repair)

    # --- reading ---------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Take in the ledger from before the oldest message that may be open, then for ever."""
        goal = await self._last_seq()
        epoch = await self._epoch()
        # A marker beyond the end belongs to another ledger.
        self._read_seq = epoch if epoch is not None and epoch <= goal else 0
        if goal == self._read_seq:
            self.caught_up.set()
        async with aclosing(self._tail.follow(self._read_seq)) as batches:
            async for batch in batches:
                self._take_in(batch)
                if self._read_seq >= goal and not self.caught_up.is_set():
                    log.info("router_caught_up", seq=self._read_seq, open_messages=len(self._agenda))
                    self.caught_up.set()

    def _take_in(self, batch: Sequence[Moved]) -> None:
        now = self._clock.now()
        for moved in batch:
            self._agenda.note(moved.ulid, moved.stored, now)
            self._heads[moved.ulid] = moved.stored.seq
            self._read_seq = moved.stored.seq
        if self._agenda.has_due(now):
            self._news.set()
        self._metrics.followed(len(batch), self._agenda, now)

    async def _last_seq(self) -> int:
        while True:
            try:
                return await self._tail.last_seq()
            except Unavailable as error:
                log.warning("ledger_unavailable", reason=error.code)
                await anyio.sleep(error.retry_after_s)

    async def _epoch(self) -> int | None:
        try:
            return await self._projection.epoch()
        except Unavailable:
            return None

    # --- acting ----------------------------------------------------------------------------------------------------

    async def _act_when_due(self, group: TaskGroup) -> None:
        """Wait for the first reading: acting on half a history would only lose compare-and-sets."""
        await self.caught_up.wait()
        while True:
            self._news = anyio.Event()
            now = self._clock.now()
            due = self._agenda.due(now)
            for entry in due:
                if entry.is_webhook and now <= entry.execution.expires_at:
                    self._webhooks.start(entry.ulid, entry.agent_id, group, self._agenda.postpone)
                else:
                    group.start_soon(self._act, entry)
            with anyio.move_on_after(0 if due else TICK_S):
                await self._news.wait()

    async def _act(self, entry: Entry) -> None:
        now = self._clock.now()
        try:
            standing = await self._apply(entry, now)
        except Unavailable as error:
            log.warning("deadline_postponed", message_ulid=entry.ulid, reason=error.code)
            self._agenda.postpone(entry.ulid, now + BACK_OFF)
            return
        self._agenda.correct(entry.ulid, standing.execution, now, seq=standing.history.head_seq)
        self._metrics.closed(entry.execution, standing.execution, now)
        log.info(
            "deadline_passed",
            message_ulid=entry.ulid,
            state_before=entry.execution.state.value,
            state=standing.execution.state.value,
            effective_delivery_mode=standing.execution.mode and standing.execution.mode.value,
            reason=standing.execution.reason.value,
        )

    async def _apply(self, entry: Entry, now: datetime) -> Standing:
        if entry.execution.state is State.SCHEDULED:
            return await self._service.route_scheduled(entry.ulid, by=self._name)
        if entry.execution.state is State.WAITING and now <= entry.execution.expires_at:
            offered = await self._service.offer_waiting(entry.ulid, by=self._name)
            if offered is not None:
                return offered
        return await self._service.close_overdue(entry.ulid, by=self._name)

    async def _offer_to_the_attached(self) -> None:
        async for agent_id in self._attached:
            for ulid in self._agenda.waiting_for(agent_id):
                try:
                    await self._service.offer_waiting(ulid, by=self._name)
                except (Unavailable, NotFound) as error:
                    log.warning("offer_postponed", message_ulid=ulid, reason=error.code)

    # --- repairing -------------------------------------------------------------------------------------------------

    async def _repair(self) -> None:
        """Twice a second, write the rows nobody has written; all of them after the store was emptied or restarted."""
        await self.caught_up.wait()
        known_incarnation: str | None = None
        while True:
            try:
                epoch, incarnation = await self._projection.epoch(), await self._projection.incarnation()
                if epoch is None or known_incarnation not in (None, incarnation):
                    await self._reread(after=epoch or 0)
                await self._write_missing()
                await self._projection.set_epoch(self._low_water())
                known_incarnation = incarnation
            except Unavailable as error:
                log.warning("projection_unavailable", reason=error.code)
            await anyio.sleep(REPAIR_EVERY_S)

    async def _reread(self, *, after: int) -> None:
        """Read a part of the ledger once more, for the rows only."""
        goal = self._read_seq
        if goal <= after:
            return
        log.warning("projection_rebuilding", after=after, goal=goal)
        async with aclosing(self._tail.follow(after)) as batches:
            async for batch in batches:
                self._heads.update({moved.ulid: moved.stored.seq for moved in batch})
                await self._write_missing()
                if batch and batch[-1].stored.seq >= goal:
                    return

    async def _write_missing(self) -> None:
        heads, self._heads = self._heads, {}
        pairs = list(heads.items())
        try:
            for start in range(0, len(pairs), REPAIR_BATCH):
                await self._write_rows(await self._projection.missing(pairs[start : start + REPAIR_BATCH]))
        except Unavailable:
            self._heads = {**heads, **self._heads}
            raise

    async def _write_rows(self, ulids: Sequence[str]) -> None:
        limiter = anyio.CapacityLimiter(REPAIR_AT_ONCE)
        failed: list[Unavailable] = []

        async def write(ulid: str) -> None:
            async with limiter:
                try:
                    await self._service.project(ulid)
                except Unavailable as error:
                    failed.append(error)

        async with anyio.create_task_group() as group:
            for ulid in ulids:
                group.start_soon(write, ulid)
        self._metrics.repaired(len(ulids))
        if failed:
            raise failed[0]
        if ulids:
            await self._projection.settle()

    def _low_water(self) -> int:
        """Everything accepted at or before this sequence has ended, and its row is written."""
        bounds = [self._read_seq, min(self._heads.values(), default=self._read_seq + 1) - 1]
        if (oldest := self._agenda.oldest()) is not None:
            bounds.append(oldest.accept_seq - 1)
        return max(0, min(bounds))
