"""Cues in the directory, as the routers fire them, and the news of those that changed."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
from nats.aio.msg import Msg

from contracts.cues import Cue, cue_key
from contracts.directory import Grant, grant_key
from contracts.subjects import Names
from gateway.ports import Write
from infra.directory_store import BucketDirectory
from infra.nats_connection import Broker
from router.store_ports import CueHeld

BACKLOG: Final = 1_000
"""More news than this at once is dropped: all cues are looked at every minute anyway."""
_PREFIX: Final = cue_key("")


class DirectoryCues:
    """Implements `router.ports.CueStore`."""

    def __init__(self, store: BucketDirectory) -> None:
        self._store = store

    async def all(self) -> Sequence[Cue]:
        return await self._store.records(f"{_PREFIX}*", Cue)

    async def get(self, cue_id: str) -> CueHeld | None:
        found = await self._store.get(cue_key(cue_id), Cue, fresh=True)
        return CueHeld(cue=found.record, seq=found.seq) if found else None

    async def put(self, cue: Cue, *, expected_seq: int) -> None:
        await self._store.transact([Write(key=cue_key(cue.id), record=cue, expected_seq=expected_seq)])

    async def is_granted(self, giver: str, to: str) -> bool:
        return await self._store.get(grant_key(giver, to), Grant) is not None


@asynccontextmanager
async def cue_news(broker: Broker, names: Names) -> AsyncIterator[AsyncIterator[str]]:
    """Inside, iterate over the ids of cues whose records change; "" says that some may have been missed."""
    send, receive = anyio.create_memory_object_stream[str](BACKLOG)

    def tell(cue_id: str) -> None:
        try:
            send.send_nowait(cue_id)
        except anyio.WouldBlock:
            return

    def hear(message: Msg) -> None:
        key = message.data.decode("utf-8", "replace")
        if key.startswith(_PREFIX):
            tell(f"cue_{key.removeprefix(_PREFIX)}")

    with send, receive:
        subscription = await broker.subscribe(names.directory_changed, hear, on_gap=lambda: tell(""))
        try:
            yield receive
        finally:
            await broker.unsubscribe(subscription)
