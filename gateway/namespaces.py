"""The agents of an owner as selections look at them: which there are is listed once for all who ask within a second.

Their records come from the directory's memory, so that a change of one counts for the next choice.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import anyio.lowlevel

from contracts.directory import SlugEntry, agent_key, slug_key
from contracts.records import Agent
from gateway.ports import DirectoryStore

LISTED_FOR_S: Final = 1.0
MAX_LOOKED_AT: Final = 1_000
"""How many agents of an owner one selection looks at, by id."""
MAX_REMEMBERED: Final = 1_000
BREATH: Final = 32
LANES: Final = 8
"""How many records are read at the same time, where memory does not have them."""


@dataclass(slots=True)
class _Listing:
    ids: Sequence[str] = ()
    valid_until: float = 0.0
    one_at_a_time: anyio.Lock = field(default_factory=anyio.Lock)


class Namespaces:
    """Lists owners' agents."""

    def __init__(self, store: DirectoryStore, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._listings: dict[str, _Listing] = {}

    async def agents_of(self, owner: str) -> tuple[Sequence[Agent], bool]:
        """The agents of `owner` that have a name, and whether these are all."""
        ids = await self._ids_of(owner)
        return await self._records(ids[:MAX_LOOKED_AT]), len(ids) <= MAX_LOOKED_AT

    async def _ids_of(self, owner: str) -> Sequence[str]:
        listing = self._listing(owner)
        async with listing.one_at_a_time:
            begun = self._monotonic()
            if begun >= listing.valid_until:
                entries = await self._store.records(slug_key(owner, "*"), SlugEntry)
                listing.ids = sorted({entry.agent_id for entry in entries})
                listing.valid_until = begun + LISTED_FOR_S
        return listing.ids

    def _listing(self, owner: str) -> _Listing:
        if owner not in self._listings and len(self._listings) >= MAX_REMEMBERED:
            self._listings.clear()
        return self._listings.setdefault(owner, _Listing())

    async def _records(self, ids: Sequence[str]) -> Sequence[Agent]:
        found: dict[str, Agent] = {}

        async def read(lane: Sequence[str]) -> None:
            for place, agent_id in enumerate(lane):
                if place % BREATH == BREATH - 1:
                    # What memory has is had without waiting: others of this process come first now and then.
                    await anyio.lowlevel.checkpoint()
                record = await self._store.get(agent_key(agent_id), Agent)
                if record is not None and record.record.deleted_at is None:
                    found[agent_id] = record.record

        async with anyio.create_task_group() as group:
            for first in range(min(LANES, len(ids))):
                group.start_soon(read, ids[first::LANES])
        return [found[agent_id] for agent_id in ids if agent_id in found]
