"""Places for deliveries under way: how many there may be in all, for one owner and for one host.

Whoever finds no place free waits in line; those behind who need another owner's or host's place pass.
"""

from collections import Counter
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import anyio

IN_ALL: Final = 512
PER_OWNER: Final = 64
PER_HOST: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceLimits:
    """How many deliveries one process has under way at once."""

    in_all: int = IN_ALL
    per_owner: int = PER_OWNER
    per_host: int = PER_HOST


@dataclass(eq=False, slots=True)
class _Waiting:
    keys: Sequence[Hashable]
    let_in: anyio.Event = field(default_factory=anyio.Event)


class Places:
    """Counts who is under way."""

    def __init__(self, limits: PlaceLimits | None = None) -> None:
        self._limits = limits or PlaceLimits()
        self._taken: Counter[Hashable] = Counter()
        self._line: list[_Waiting] = []

    @property
    def taken(self) -> int:
        return self._taken["all"]

    async def take(self, owner: str, host: str) -> None:
        """Return once there is a place; `free` it with the same words."""
        keys = _keys(owner, host)
        if self._has_room(keys):
            self._count(keys, 1)
            return
        waiting = _Waiting(keys)
        self._line.append(waiting)
        try:
            await waiting.let_in.wait()
        except BaseException:
            if waiting.let_in.is_set():
                self.free(owner, host)
            else:
                self._line.remove(waiting)
            raise

    @asynccontextmanager
    async def place(self, owner: str, host: str) -> AsyncIterator[None]:
        """A place for as long as the block runs."""
        await self.take(owner, host)
        try:
            yield
        finally:
            self.free(owner, host)

    def free(self, owner: str, host: str) -> None:
        self._count(_keys(owner, host), -1)
        for waiting in tuple(self._line):
            if self.taken >= self._limits.in_all:
                return
            if self._has_room(waiting.keys):
                self._line.remove(waiting)
                self._count(waiting.keys, 1)
                waiting.let_in.set()

    def _has_room(self, keys: Sequence[Hashable]) -> bool:
        limits = (self._limits.in_all, self._limits.per_owner, self._limits.per_host)
        return all(self._taken[key] < limit for key, limit in zip(keys, limits, strict=True))

    def _count(self, keys: Sequence[Hashable], by: int) -> None:
        for key in keys:
            self._taken[key] += by
            if not self._taken[key]:
                del self._taken[key]


def _keys(owner: str, host: str) -> Sequence[Hashable]:
    return ("all", ("owner", owner), ("host", host))


def host_of(url: str) -> str:
    """The host and port a webhook's URL leads to, however it is spelled: other spellings are no other host."""
    parts = urlsplit(url)
    default = 80 if parts.scheme == "http" else 443
    return f"{(parts.hostname or '').removesuffix('.')}:{parts.port or default}"
