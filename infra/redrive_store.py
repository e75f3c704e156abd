"""Redrives in the directory, as the routers' redrivers read and move them on; and the dead letters they look for."""

from collections.abc import Sequence
from dataclasses import replace

import structlog

from contracts.errors import Stale
from contracts.redrives import (
    OPEN_KEY,
    DeadLetterFilter,
    OpenRedrive,
    OpenRedrives,
    Redrive,
    RedriveRun,
    redrive_key,
    run_key,
)
from gateway.ports import Queries, Query, Write
from infra.directory_store import BucketDirectory
from router.store_ports import DeadLetterRows, RunHeld

log = structlog.get_logger(__name__)


class DirectoryRedrives:
    """Implements `router.ports.RedriveStore`."""

    def __init__(self, store: BucketDirectory) -> None:
        self._store = store

    async def open(self) -> Sequence[OpenRedrive]:
        found = await self._store.get(OPEN_KEY, OpenRedrives)
        return found.record.items if found else ()

    async def redrive(self, named: OpenRedrive) -> Redrive | None:
        found = await self._store.get(redrive_key(named.owner, named.id), Redrive, fresh=True)
        return found.record if found else None

    async def run(self, redrive_id: str) -> RunHeld | None:
        found = await self._store.get(run_key(redrive_id), RedriveRun, fresh=True)
        return RunHeld(run=found.record, seq=found.seq) if found else None

    async def set_run(self, redrive_id: str, run: RedriveRun, *, expected_seq: int) -> RunHeld:
        key = run_key(redrive_id)
        await self._store.transact([Write(key=key, record=run, expected_seq=expected_seq)])
        found = await self._store.get(key, RedriveRun, fresh=True)
        if found is None or found.record != run:
            raise Stale(key, expected_seq)
        return RunHeld(run=run, seq=found.seq)

    async def close(self, named: OpenRedrive) -> None:
        while True:
            found = await self._store.get(OPEN_KEY, OpenRedrives, fresh=True)
            if found is None or named not in found.record.items:
                return
            rest = replace(found.record, items=tuple(each for each in found.record.items if each != named))
            try:
                await self._store.transact([Write(key=OPEN_KEY, record=rest, expected_seq=found.seq)])
            except Stale:
                log.debug("redrive_close_retried", redrive_id=named.id)
            else:
                return


class ProjectedDeadLetters:
    """Implements `router.ports.DeadLetterIndex` on the lists every message is in."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def page(
        self, owner: str, wanted: DeadLetterFilter, *, after: int | None, limit: int, oldest_first: bool
    ) -> DeadLetterRows:
        query = Query(
            owner=owner,
            agent_id=wanted.agent_id,
            states=wanted.wanted_states,
            channel=wanted.channel,
            after=after,
            limit=limit,
            oldest_first=oldest_first,
        )
        page = await self._queries.page(query)
        return DeadLetterRows(views=page.views, next_after=page.next_after)
