"""Redrives are asked for, listed, read and cancelled; the routers work them off."""

from typing import Final

from contracts.clock import Clock, Ids
from contracts.errors import Conflict, NotFound, TooMany
from contracts.ids import REDRIVE_ID
from contracts.records import JsonObject, Principal
from contracts.redrives import (
    OPEN_KEY,
    DeadLetterFilter,
    OpenRedrive,
    OpenRedrives,
    Redrive,
    RedriveRun,
    RedriveState,
    redrive_key,
    run_key,
)
from gateway.auth import authorize
from gateway.dead_letters import Chosen, Survey
from gateway.directory import decided
from gateway.ports import DirectoryStore, Versioned, Write
from router.explain import instant
from router.redrive_runs import cancelling, is_open

MAX_OPEN_OF_OWNER: Final = 4
MAX_OPEN: Final = 64
KEPT: Final = 50
"""Redrives of an owner that are remembered."""


class RedriveBook:
    """One directory record says what was asked, another how far it has got, a third which are open."""

    def __init__(self, *, store: DirectoryStore, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def create(self, chosen: Chosen, survey: Survey, rate_per_s: float, caller: Principal) -> JsonObject:
        """Ask for a redrive. Raises `TooMany` (`too_many_redrives`) while others are under way."""
        job = Redrive(
            id=f"redrive_{self._ids.ulid()}",
            owner=chosen.owner,
            created_at=self._clock.now(),
            created_by=f"key:{caller.key_id}",
            rate_per_s=rate_per_s,
            wanted=chosen.wanted,
            message_ids=tuple(survey.message_ids),
            matched=survey.matched,
            matched_is_exact=survey.is_exact,
        )
        run = RedriveRun(updated_at=job.created_at)
        await decided(lambda: self._create(job, run))
        return redrive_view(job, run)

    async def of_owner(self, owner: str) -> list[JsonObject]:
        """The newest first."""
        views = []
        for key in reversed(await self._store.keys(redrive_key(owner, "*"))):
            job = await self._store.get(key, Redrive)
            run = await self._store.get(run_key(_id_of(key)), RedriveRun)
            if job is not None and run is not None:
                views.append(redrive_view(job.record, run.record))
        return views

    async def find(self, redrive_id: str, caller: Principal) -> JsonObject:
        """Raises `NotFound` for what is absent and for what is somebody else's, alike."""
        job, run = await self._find(redrive_id, caller, "redrive.read")
        return redrive_view(job, run.record)

    async def cancel(self, redrive_id: str, caller: Principal) -> JsonObject:
        """Raises `Conflict` (`redrive_ended`) for one that is done; may be repeated."""

        async def change() -> JsonObject:
            job, run = await self._find(redrive_id, caller, "redrive.cancel")
            if run.record.state is RedriveState.DONE:
                raise Conflict("redrive_ended", "This redrive is done.")
            if run.record.state is not RedriveState.RUNNING:
                return redrive_view(job, run.record)
            record = cancelling(run.record, self._clock.now())
            await self._store.transact([Write(key=run_key(job.id), record=record, expected_seq=run.seq)])
            return redrive_view(job, record)

        return await decided(change)

    async def _find(self, redrive_id: str, caller: Principal, action: str) -> tuple[Redrive, Versioned[RedriveRun]]:
        if not REDRIVE_ID.match(redrive_id):
            raise _no_redrive()
        keys = [redrive_key(caller.owner, redrive_id)]
        if caller.admin:
            keys = await self._store.keys(redrive_key("*", redrive_id))
        job = await self._store.get(keys[0], Redrive) if keys else None
        run = await self._store.get(run_key(redrive_id), RedriveRun, fresh=True)
        if job is None or run is None or not authorize(caller, action, job.record.owner):
            raise _no_redrive()
        return job.record, run

    async def _create(self, job: Redrive, run: RedriveRun) -> None:
        found = await self._store.get(OPEN_KEY, OpenRedrives, fresh=True)
        items = found.record.items if found else ()
        own = [each for each in items if each.owner == job.owner]
        if len(own) >= MAX_OPEN_OF_OWNER or len(items) >= MAX_OPEN:
            raise TooMany("too_many_redrives", "Wait until a redrive that is under way has ended.", retry_after_s=5.0)
        opened = OpenRedrives(items=(*items, OpenRedrive(owner=job.owner, id=job.id)))
        await self._store.transact(
            [
                Write(key=redrive_key(job.owner, job.id), record=job, expected_seq=0),
                Write(key=run_key(job.id), record=run, expected_seq=0),
                Write(key=OPEN_KEY, record=opened, expected_seq=found.seq if found else 0),
                *await self._forgotten(job.owner),
            ]
        )

    async def _forgotten(self, owner: str) -> list[Write]:
        """What it takes to forget the oldest of too many."""
        writes: list[Write] = []
        keys = await self._store.keys(redrive_key(owner, "*"))
        for key in keys[: max(0, len(keys) + 1 - KEPT)]:
            job = await self._store.get(key, Redrive, fresh=True)
            run = await self._store.get(run_key(_id_of(key)), RedriveRun, fresh=True)
            if job is not None and run is not None and not is_open(run.record):
                writes.append(Write(key=key, record=None, expected_seq=job.seq))
                writes.append(Write(key=run_key(_id_of(key)), record=None, expected_seq=run.seq))
        return writes


def redrive_view(job: Redrive, run: RedriveRun) -> JsonObject:
    return {
        "id": job.id,
        "owner": job.owner,
        "state": run.state.value,
        "filter": _filter_view(job.wanted) if job.wanted else None,
        "named": None if job.wanted else len(job.message_ids),
        "rate_per_s": job.rate_per_s,
        "matched": job.matched,
        "matched_is_exact": job.matched_is_exact,
        "done": run.done,
        "redriven": run.redriven,
        "moved_on": run.moved_on,
        "refused": sum(each.count for each in run.refused),
        "refused_by_reason": {each.reason: each.count for each in run.refused},
        "created_at": instant(job.created_at),
        "created_by": job.created_by,
        "updated_at": instant(run.updated_at),
        "ended_at": instant(run.ended_at),
    }


def _filter_view(wanted: DeadLetterFilter) -> JsonObject:
    return {
        "agent_id": wanted.agent_id,
        "states": [state.value for state in wanted.states],
        "reasons": [reason.value for reason in wanted.reasons],
        "channel": wanted.channel.value if wanted.channel else None,
        "since": instant(wanted.since),
        "until": instant(wanted.until),
    }


def _id_of(key: str) -> str:
    return f"redrive_{key.rpartition('.')[2]}"


def _no_redrive() -> NotFound:
    return NotFound("redrive_not_found", "There is no such redrive.")
