"""Routers that fire cues beside a gateway under test, on a clock the test moves."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import anyio

from contracts.cues import Cue, cue_key
from gateway.ports import Write
from infra.cue_store import DirectoryCues, cue_news
from infra.directory_store import BucketDirectory, DirectoryReader
from infra.event_stream import EventStream
from infra.ledger import StreamLedger
from infra.ledger_tail import StreamTail
from router.cues import CueRunner
from tests.http_rig import Json, Rig
from tests.installation import MovableClock


@dataclass(kw_only=True)
class CueRig:
    """A gateway and as many routers as one likes. `clock` is the routers'; cues are brought to it by `due`."""

    rig: Rig
    clock: MovableClock = field(default_factory=MovableClock)

    @property
    def store(self) -> BucketDirectory:
        store = self.rig.gateway.parts.store
        assert isinstance(store, BucketDirectory)
        return store

    @asynccontextmanager
    async def router(self, name: str = "router:test", clock: MovableClock | None = None) -> AsyncIterator[CueRunner]:
        broker, names = self.rig.gateway.broker, self.rig.gateway.names
        async with (
            StreamLedger.open(broker, names) as ledger,
            cue_news(broker, names) as news,
            anyio.create_task_group() as group,
        ):
            runner = CueRunner(
                name=name,
                service=self.rig.gateway.parts.service,
                store=DirectoryCues(self.store),
                directory=DirectoryReader(self.store),
                ledger=ledger,
                tail=StreamTail(broker, names),
                events=EventStream(broker, names),
                news=news,
                clock=clock or self.clock,
            )
            group.start_soon(runner.run)
            yield runner
            group.cancel_scope.cancel()

    async def cue(self, **fields: object) -> Json:
        body = {"name": "report", "to": "notes", "message": "Write it.", **fields}
        return await self.rig.max.post("/v1/cues", {k: v for k, v in body.items() if v is not None}, status=201)

    async def rewrite(self, cue: Json, change: Callable[[Cue], Cue]) -> None:
        """Change a cue's record as only a router does."""
        found = await self.store.get(cue_key(cue["id"]), Cue, fresh=True)
        assert found is not None
        write = Write(key=cue_key(cue["id"]), record=change(found.record), expected_seq=found.seq)
        await self.store.transact([write])

    async def every_minute(self, *, minutes_ago: int = -1, **fields: object) -> Json:
        """A cue of each minute whose next instant was so many of the routers' minutes ago; they begin in mid-minute.

        The gateway's own clock may be at the very end of a minute, and then nobody could say how many are due.
        """
        cue = await self.cue(**{"schedule": {"cron": "* * * * *"}, **fields})
        self.clock.move(seconds=15 - self.clock.now().second)
        following = self.clock.now().replace(second=0, microsecond=0) - timedelta(minutes=minutes_ago)
        await self.rewrite(cue, lambda record: replace(record, next_fire_at=following))
        return await self.read(cue)

    async def read(self, cue: Json) -> Json:
        return await self.rig.max.get(f"/v1/cues/{cue['id']}")

    async def until(self, cue: Json, holds: Callable[[Json], bool], timeout_s: float = 30) -> Json:
        """The cue once something holds of it."""
        found: Json = {}
        try:
            with anyio.fail_after(timeout_s):
                while True:
                    found = await self.read(cue)
                    if holds(found):
                        return found
                    await anyio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"the cue stayed as it is: {found}") from None

    async def messages(self, cue: Json) -> list[Json]:
        """The executions of a cue's fires, oldest first."""
        page = await self.rig.max.get("/v1/executions", cue_id=cue["id"], limit=200)
        return sorted(page["executions"], key=lambda each: str(each["scheduled_for"]))
