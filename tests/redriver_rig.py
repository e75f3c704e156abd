"""Redrives in tests: dead letters made through the gateway, and routers that work them off in this process."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from prometheus_client import CollectorRegistry

from contracts.clock import Clock
from contracts.redrives import Redrive
from infra.directory_store import BucketDirectory
from infra.redrive_store import DirectoryRedrives, ProjectedDeadLetters
from router.redrive_metrics import RedriveMetrics
from router.redrive_runs import Passage
from router.redriver import DeadLetterDesk, Redriver
from router.store_ports import RedriveStore
from tests.http_rig import Json, Rig

TO_NOBODY: Json = {"delivery_mode": "live", "live_fallback_mode": "none"}
"""Forced live without a session: the message ends at once."""


@dataclass
class Watched:
    """The service, with what was asked of it; `before` may fail or hold a message."""

    rig: Rig
    before: Callable[[int], object] = lambda number: None
    asked: list[str] = field(default_factory=list)

    async def redrive_for(self, ulid: str, job: Redrive) -> Passage:
        self.asked.append(ulid)
        self.before(len(self.asked))
        return await self.rig.gateway.parts.service.redrive_for(ulid, job)

    async def is_redriven_by(self, ulid: str, job: Redrive) -> bool:
        return await self.rig.gateway.parts.service.is_redriven_by(ulid, job)


@asynccontextmanager
async def router(
    rig: Rig,
    desk: DeadLetterDesk,
    name: str = "router:a",
    *,
    ceiling_per_s: float = 500,
    store: RedriveStore | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[None]:
    parts = rig.gateway.parts
    redriver = Redriver(
        name=name,
        store=store or redrives_of(rig),
        index=ProjectedDeadLetters(parts.queries),
        desk=desk,
        clock=clock or parts.clock,
        metrics=RedriveMetrics(CollectorRegistry()),
        ceiling_per_s=ceiling_per_s,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(redriver.run)
        yield
        group.cancel_scope.cancel()


def redrives_of(rig: Rig) -> DirectoryRedrives:
    store = rig.gateway.parts.store
    assert isinstance(store, BucketDirectory)
    return DirectoryRedrives(store)


async def dead(rig: Rig, n: int) -> list[Json]:
    """Messages to `mac` that end at once, oldest first."""
    return [await rig.max.send("mac", f"number {number}", **TO_NOBODY) for number in range(n)]
