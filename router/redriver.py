"""Works off redrives: each by one router at a time, at its own rate, and each message once whoever dies in between.

    open redrives ──look──▶ one loop for each ▶ take the run ▶ deal with what is in hand ▶ write it down with the next
                                                                   │ token ▶ replay ▶ rest
                                                                   └ the broker is away: wait, ask again

What is in hand is written down before it is touched. Whoever takes over deals with the same messages again, and the
ledger says which of them have their new execution by this very redrive.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Final, Protocol, TypeVar

import anyio
import structlog
from anyio.abc import TaskGroup

from contracts import ids
from contracts.clock import Clock
from contracts.errors import PostroomError, Stale, Unavailable
from contracts.redrives import OpenRedrive, Redrive, RedriveRun, RedriveState
from router.dead_letter_search import find_dead_letters
from router.redrive_metrics import RedriveMetrics
from router.redrive_pace import TokenBucket, rest_s
from router.redrive_runs import (
    Passage,
    Portion,
    Redriven,
    Refused,
    Tally,
    counted,
    is_held,
    is_open,
    is_running_out,
    moved,
    named_portion,
    not_before,
    page_size,
    taken,
    was_only_cancelled,
)
from router.store_ports import DeadLetterIndex, RedriveStore, RunHeld

LOOK_EVERY_S: Final = 1.0
NOT_UNDERSTOOD_S: Final = 60.0
"""How long a redrive whose records cannot be read is left alone."""
CEILING_PER_S: Final = 200.0
"""What all redrives of one router have together."""

T = TypeVar("T")
log = structlog.get_logger("router.redriver")


class DeadLetterDesk(Protocol):
    """What a redriver needs of the router's service."""

    async def redrive_for(self, ulid: str, job: Redrive) -> Passage: ...

    async def is_redriven_by(self, ulid: str, job: Redrive) -> bool: ...


@dataclass(slots=True)
class _Pace:
    """The buckets a message takes a token of: its redrive's own, and the one all redrives of this router share."""

    clock: Clock
    own: TokenBucket
    shared: list[TokenBucket]

    def wait_s(self) -> float:
        """How long until both have a token; 0 when they do."""
        now = self.clock.now()
        return max(self.own.wait_s(now), self.shared[0].wait_s(now))

    def take(self) -> None:
        now = self.clock.now()
        self.own, self.shared[0] = self.own.taken(now), self.shared[0].taken(now)


class Redriver:
    """One router's redriver. `run` returns when cancelled."""

    def __init__(
        self,
        *,
        name: str,
        store: RedriveStore,
        index: DeadLetterIndex,
        desk: DeadLetterDesk,
        clock: Clock,
        metrics: RedriveMetrics,
        ceiling_per_s: float = CEILING_PER_S,
        stopwatch: Callable[[], float] = perf_counter,
    ) -> None:
        self._name = name
        self._store = store
        self._index = index
        self._desk = desk
        self._clock = clock
        self._metrics = metrics
        self._stopwatch = stopwatch
        self._shared = [TokenBucket(per_s=ceiling_per_s)]
        self._at_work: set[str] = set()

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            while True:
                for named in await _patiently(self._store.open):
                    self._begin(named, group)
                await anyio.sleep(LOOK_EVERY_S)

    def _begin(self, named: OpenRedrive, group: TaskGroup) -> None:
        if named.id not in self._at_work:
            self._at_work.add(named.id)
            group.start_soon(self._work, named)

    async def _work(self, named: OpenRedrive) -> None:
        """Work at one redrive until it has ended, or another router is at it."""
        try:
            await self._work_at(named)
        except PostroomError as error:
            # A record nobody understands must not stop the other redrives, nor end the router.
            log.exception("redrive_not_understood", redrive_id=named.id, exc_info=error)
            await anyio.sleep(NOT_UNDERSTOOD_S)
        finally:
            self._at_work.discard(named.id)

    async def _work_at(self, named: OpenRedrive) -> None:
        job = await _patiently(partial(self._store.redrive, named))
        if job is None:
            await _patiently(partial(self._store.close, named))
            return
        pace = _Pace(clock=self._clock, own=TokenBucket(per_s=job.rate_per_s), shared=self._shared)
        while await self._step_safely(job, pace):
            pass

    async def _step_safely(self, job: Redrive, pace: _Pace) -> bool:
        try:
            return await self.step(job, pace)
        except Stale:
            log.info("redrive_taken_by_another", redrive_id=job.id)
            return False
        except Unavailable as error:
            log.warning("redrive_waits", redrive_id=job.id, reason=error.code)
            await anyio.sleep(error.retry_after_s)
            return True

    async def step(self, job: Redrive, pace: _Pace) -> bool:
        """Deal with what is in hand and take the next; False when this router has nothing to do with it any more."""
        held = await self._store.run(job.id)
        if held is None or not is_open(held.run):
            await self._store.close(OpenRedrive(owner=job.owner, id=job.id))
            return False
        now = self._clock.now()
        if not_before(held.run, self._name, now) is not None:
            return False
        if not is_held(held.run, self._name, now):
            held = await self._take(job, held)
        held, tally = await self._deal_with(job, held, pace)
        portion = await self._next(job, held.run)
        held = await self._write_down(job, held, tally, portion)
        return is_open(held.run)

    async def _take(self, job: Redrive, held: RunHeld) -> RunHeld:
        log.info("redrive_taken", redrive_id=job.id, done=held.run.done, before=held.run.holder)
        run = taken(held.run, self._name, self._clock.now())
        return await self._store.set_run(job.id, run, expected_seq=held.seq)

    async def _deal_with(self, job: Redrive, held: RunHeld, pace: _Pace) -> tuple[RunHeld, Tally]:
        tally = Tally()
        for ulid in held.run.in_hand:
            held = await self._turn(job, held, pace)
            if held.run.state is RedriveState.CANCELLING:
                if await self._was_redriven(ulid, job):
                    tally.count(Redriven())
                continue
            began_s = self._stopwatch()
            tally.count(await self._redriven(ulid, job))
            if (rest := rest_s(self._stopwatch() - began_s)) > 0:
                self._metrics.rested(rest)
                await anyio.sleep(rest)
        return held, tally

    async def _turn(self, job: Redrive, held: RunHeld, pace: _Pace) -> RunHeld:
        """Wait for a token, and hold on to the redrive meanwhile; one that is cancelled needs no token."""
        while True:
            held = await self._held_on(job, held)
            if held.run.state is RedriveState.CANCELLING:
                return held
            if (wait_s := pace.wait_s()) == 0:
                pace.take()
                return held
            await anyio.sleep(wait_s)

    async def _held_on(self, job: Redrive, held: RunHeld) -> RunHeld:
        """The run, held for longer where that is due. Raises `Stale` when another router has it."""
        now = self._clock.now()
        if not is_running_out(held.run, now):
            return held
        run = taken(held.run, self._name, now)
        try:
            return await _patiently(partial(self._store.set_run, job.id, run, expected_seq=held.seq))
        except Stale:
            return await self._cancelled_meanwhile(job, held)

    async def _redriven(self, ulid: str, job: Redrive) -> Passage:
        """A message nobody understands must not hide those behind it, nor end the router."""
        try:
            return await _patiently(partial(self._desk.redrive_for, ulid, job))
        except PostroomError as error:
            log.exception("redrive_failed", redrive_id=job.id, message_id=ids.message_id(ulid), reason=error.code)
            return Refused(error.code)

    async def _was_redriven(self, ulid: str, job: Redrive) -> bool:
        try:
            return await _patiently(partial(self._desk.is_redriven_by, ulid, job))
        except PostroomError as error:
            log.exception("redrive_unknown", redrive_id=job.id, message_id=ids.message_id(ulid), reason=error.code)
            return False

    async def _next(self, job: Redrive, run: RedriveRun) -> Portion | None:
        if run.is_last or run.state is RedriveState.CANCELLING:
            return None
        if job.wanted is None:
            return named_portion(job, run.position)
        found = await find_dead_letters(
            self._index,
            job.owner,
            job.wanted,
            limit=page_size(job),
            after=run.position,
            oldest_first=True,
            ended_before=job.created_at,
        )
        ulids = tuple(ulid for view in found.views if (ulid := ids.ulid_of_message(view["id"])))
        position = run.position if found.next_after is None else found.next_after
        return Portion(ulids=ulids, position=position, is_last=found.next_after is None)

    async def _write_down(self, job: Redrive, held: RunHeld, tally: Tally, portion: Portion | None) -> RunHeld:
        """Its owner may have cancelled it meanwhile: what was done until then is counted all the same."""
        while True:
            run = moved(counted(held.run, tally), portion, self._name, self._clock.now())
            try:
                written = await _patiently(partial(self._store.set_run, job.id, run, expected_seq=held.seq))
            except Stale:
                held = await self._cancelled_meanwhile(job, held)
                continue
            self._metrics.dealt_with(tally)
            if not is_open(run):
                await self._close(job, run)
            return written

    async def _cancelled_meanwhile(self, job: Redrive, held: RunHeld) -> RunHeld:
        """The run as it is now, if nobody but its owner has touched it. Raises `Stale` otherwise."""
        now = await _patiently(partial(self._store.run, job.id))
        if now is None or not was_only_cancelled(held.run, now.run):
            raise Stale(job.id, held.seq)
        return now

    async def _close(self, job: Redrive, run: RedriveRun) -> None:
        log.info(
            "redrive_ended",
            redrive_id=job.id,
            state=run.state.value,
            redriven=run.redriven,
            moved_on=run.moved_on,
            refused=sum(each.count for each in run.refused),
        )
        await _patiently(partial(self._store.close, OpenRedrive(owner=job.owner, id=job.id)))


async def _patiently(step: Callable[[], Awaitable[T]]) -> T:
    """Take a step until the broker is there for it."""
    while True:
        try:
            return await step()
        except Unavailable as error:
            log.warning("redriver_waits", reason=error.code)
            await anyio.sleep(error.retry_after_s)
