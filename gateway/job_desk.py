"""Jobs change hands: claimed by one worker, held for it while it beats, completed once or tried again.

Every step is a step of the execution it is a view of, so a job is claimed by one worker whichever door it came through.
"""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Final

import anyio
import structlog
from starlette.types import Receive

from contracts.clock import Clock
from contracts.errors import Conflict, NotFound, Unavailable
from contracts.freshness import host_name
from contracts.ids import execution_id
from contracts.records import Agent, Principal
from contracts.words import Channel, State
from gateway.claimable import Claimables, Look, claimable_at
from gateway.directory import Directory
from gateway.holds import Check, Holds
from gateway.jobs import CONCURRENCY, FIRST_LEASE_S, LEASE_S, JobFilter, gave_up
from gateway.namespaces import MAX_LOOKED_AT, Namespaces
from gateway.ports import Beats, HeldJobs, Queries, Query, Watch
from router.reports import Report
from router.selectors import Selector
from router.service import Service, Standing

CANDIDATES: Final = 50
FULL_FOR_S: Final = 0.1
"""How long a worker that has its hands full waits before it is asked after again."""
BETWEEN_LOOKS_S: Final = 0.05
"""A worker that waits for any job is woken by every one of them; it looks no more often than this."""
GOES_ON_AFTER_S: Final = 0.2
"""Where the rows are more than one look sees: 2 000 of them cost about 40 ms."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWish:
    """What a worker claims: at one agent, at those that fit `selector`, or at all it may work for."""

    owner: str
    worker_id: str
    agent: Agent | None = None
    selector: Selector | None = None
    queues: Collection[str] = ()
    actions: Collection[str] = ()
    wait_s: float = 0
    concurrency: int = CONCURRENCY


@dataclass(frozen=True, slots=True)
class Fence:
    """Who speaks of a job, and under which attempt."""

    job_id: str
    worker_id: str
    attempt: int


class JobDesk:
    """Raises what the service raises; a fence that does not hold is `Conflict` (`stale_lease`)."""

    def __init__(
        self,
        *,
        service: Service,
        queries: Queries,
        claimables: Claimables,
        watch: Watch,
        beats: Beats,
        held_jobs: HeldJobs,
        directory: Directory,
        namespaces: Namespaces,
        holds: Holds,
        clock: Clock,
    ) -> None:
        self._service = service
        self._queries = queries
        self._claimables = claimables
        self._watch = watch
        self._beats = beats
        self._held_jobs = held_jobs
        self._directory = directory
        self._namespaces = namespaces
        self._holds = holds
        self._clock = clock

    async def claim(self, wish: JobWish, caller: Principal, receive: Receive, check: Check) -> Standing | None:
        """The job that has waited longest, leased; None when there was none for as long as the worker waits.

        Raises `Conflict` (`agent_inactive`, `service_account_disabled`) for an agent that is named and takes nothing.
        """
        if wish.agent is not None and (obstacle := await self._service.obstacle_at(wish.agent.id)):
            raise obstacle
        agent_ids = await self._agent_ids(wish, caller)
        if agent_ids is not None and not agent_ids:
            await self._pass_time(wish, receive, check)
            return None
        await self._say_alive(agent_ids)
        found = None
        if not await self._is_full(wish):
            found = await self._taken(await self._look(wish, agent_ids), wish, caller)
        return found if found or not wish.wait_s else await self._wait(wish, agent_ids, caller, receive, check)

    async def beat(self, owner: str, fence: Fence, caller: Principal) -> Standing:
        """Make the lease as long as ever again."""
        await self._held(owner, fence, caller)
        standing = await self._service.extend(fence.job_id, number=fence.attempt, lease_s=LEASE_S, principal=caller)
        await self._note_held(owner, fence.worker_id, standing)
        await self._say_alive([standing.history.message.agent_id])
        return standing

    async def complete(self, owner: str, fence: Fence, result: object, caller: Principal) -> Standing:
        """Record the outcome; saying the very same again is the same."""
        standing = await self._visible(owner, fence, caller)
        if standing.execution.state is not State.DELIVERED:
            _check(standing, fence)
        report = Report(success=True, result=result, executed_via="bg", lease=fence.attempt)
        standing = await self._service.report(fence.job_id, report, caller)
        await self._note_held(owner, fence.worker_id, standing)
        return standing

    async def fail(self, owner: str, fence: Fence, detail: str, caller: Principal) -> None:
        """End the attempt: the job is queued again, or its attempts are used up. Saying so again is the same."""
        standing = await self._visible(owner, fence, caller)
        number = standing.execution.number
        by = f"key:{caller.key_id}"
        if gave_up(standing.history, number, fence.attempt, worker_id=fence.worker_id, by=by):
            return
        _check(standing, fence)
        standing = await self._service.release(
            fence.job_id, number=fence.attempt, reason_detail="failed", detail=detail, principal=caller
        )
        await self._note_held(owner, fence.worker_id, standing)

    async def held(self, owner: str, fence: Fence, caller: Principal) -> Standing:
        """The job, if this fence holds."""
        return await self._held(owner, fence, caller)

    # --- who and what ----------------------------------------------------------------------------------------------

    async def _agent_ids(self, wish: JobWish, caller: Principal) -> Collection[str] | None:
        """At which agents to look; None: at all of the owner's."""
        if wish.agent is not None:
            return [wish.agent.id]
        own = await self._directory.confines(caller, "job.claim")
        if wish.selector is None:
            return None if own is None else [agent.id for agent in own]
        among = own if own is not None else (await self._namespaces.agents_of(wish.owner))[0]
        return [agent.id for agent in among if wish.selector.fits(agent)]

    async def _say_alive(self, agent_ids: Collection[str] | None) -> None:
        """Whoever claims for an agent is the host of its background work."""
        if not agent_ids:
            return
        now = self._clock.now()
        try:
            await self._beats.beat({host_name(agent_id): now for agent_id in list(agent_ids)[:MAX_LOOKED_AT]})
        except Unavailable as error:
            log.warning("host_beat_lost", code=error.code)

    async def _look(self, wish: JobWish, agent_ids: Collection[str] | None) -> Look:
        await self._queries.settle()
        fits = JobFilter(
            frozenset(wish.queues), frozenset(wish.actions), None if agent_ids is None else frozenset(agent_ids)
        )
        is_open = claimable_at(self._clock.now())
        query = Query(
            owner=wish.owner,
            agent_id=next(iter(agent_ids)) if agent_ids and len(agent_ids) == 1 else None,
            states=(State.QUEUED,),
            channel=Channel.BG,
            limit=CANDIDATES,
            oldest_first=True,
        )
        return await self._claimables.look(query, lambda view: fits.takes(view) and is_open(view), what=fits)

    async def _taken(self, look: Look, wish: JobWish, caller: Principal) -> Standing | None:
        """The first of what was seen that can be had."""
        for view in look.views:
            try:
                taken = await self._service.lease(
                    view["execution_id"], holder=wish.worker_id, lease_s=FIRST_LEASE_S, principal=caller
                )
            except (Conflict, NotFound):
                continue  # another worker was faster, or the row was older than the message
            await self._note_held(wish.owner, wish.worker_id, taken)
            return taken
        return None

    async def _is_full(self, wish: JobWish) -> bool:
        return await self._held_jobs.count(wish.owner, wish.worker_id) >= wish.concurrency

    async def _note_held(self, owner: str, worker_id: str, standing: Standing) -> None:
        """What the ledger says counts; while the store is away a worker may be given more than it can begin."""
        job_id = execution_id(standing.history.ulid, standing.execution.number)
        lease = standing.execution.lease
        try:
            if lease is not None and standing.execution.state is State.LEASED:
                await self._held_jobs.hold(owner, worker_id, job_id, lease.expires_at)
            else:
                await self._held_jobs.drop(owner, worker_id, job_id)
        except Unavailable as error:
            log.warning("held_jobs_unnoted", code=error.code)

    async def _wait(
        self, wish: JobWish, agent_ids: Collection[str] | None, caller: Principal, receive: Receive, check: Check
    ) -> Standing | None:
        found: Standing | None = None
        async with self._holds.at_most(wish.wait_s, receive, check), self._watch.background(agent_ids) as pushes:
            while found is None:
                if await self._is_full(wish):
                    await anyio.sleep(FULL_FOR_S)
                    continue
                look = await self._look(wish, agent_ids)
                # A lease that is taken has to be told: the end of the wait does not come between the two.
                with anyio.CancelScope(shield=True):
                    found = await self._taken(look, wish, caller)
                if found is None:
                    await self._woken(pushes, look)
        return found

    async def _pass_time(self, wish: JobWish, receive: Receive, check: Check) -> None:
        """A worker that is told of no job asks again at once, so it is not told so before its time."""
        async with self._holds.at_most(wish.wait_s, receive, check):
            await anyio.sleep_forever()

    async def _woken(self, pushes: AsyncIterator[None], look: Look) -> None:
        with anyio.move_on_after(GOES_ON_AFTER_S if look.is_partial else None):
            await anext(pushes)
        await anyio.sleep(BETWEEN_LOOKS_S)

    # --- the fence -------------------------------------------------------------------------------------------------

    async def _held(self, owner: str, fence: Fence, caller: Principal) -> Standing:
        standing = await self._visible(owner, fence, caller)
        _check(standing, fence)
        return standing

    async def _visible(self, owner: str, fence: Fence, caller: Principal) -> Standing:
        standing = await self._service.find_execution(fence.job_id, caller, "execution.lease")
        if standing.history.message.agent_owner != owner:
            raise NotFound("execution_not_found", "There is no such execution.")
        return standing


def _check(standing: Standing, fence: Fence) -> None:
    lease = standing.execution.lease
    is_theirs = lease is not None and (lease.number, lease.holder) == (fence.attempt, fence.worker_id)
    if not is_theirs or standing.execution.channel is not Channel.BG:
        raise Conflict("stale_lease", "This attempt is not the present one of this job.")
