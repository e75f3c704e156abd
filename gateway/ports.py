"""What the gateway needs of the world. `infra` implements them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from contracts.directory import DirectoryRecord
from contracts.words import Channel, State

T = TypeVar("T", bound=DirectoryRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class Versioned(Generic[T]):
    """A directory record with the sequence a change of it must expect."""

    record: T
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One change of a directory transaction. `record` None deletes; `expected_seq` 0 means "the key must not exist"."""

    key: str
    record: DirectoryRecord | None
    expected_seq: int


class DirectoryStore(Protocol):
    """The directory's bucket: typed records under keys, changed by compare-and-set, several keys at once or none."""

    async def get(self, key: str, kind: type[T], *, fresh: bool = False) -> "Versioned[T] | None":
        """The record, or None when absent or deleted. May be two seconds old unless `fresh`."""
        ...

    async def transact(self, writes: Sequence[Write]) -> None:
        """Write all or nothing. Raises `Stale` when any expectation fails. Other programs see it within two seconds."""
        ...

    async def keys(self, pattern: str) -> list[str]:
        """The existing keys that match a pattern such as `slug.max.*`, sorted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A list question, answered newest first unless `oldest_first`.

    `after` is the cursor: the accept sequence of the last row seen.
    """

    owner: str
    agent_id: str | None = None
    sender_agent_id: str | None = None
    states: tuple[State, ...] = ()
    channel: Channel | None = None
    after: int | None = None
    limit: int = 50
    oldest_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Views (JSON bytes) in order, and the cursor to go on with; None when there is no more."""

    views: tuple[bytes, ...]
    next_after: int | None


class Queries(Protocol):
    """Lists, answered from the projection. Raises `Unavailable` (`projection_rebuilding`) rather than answer short."""

    async def page(self, query: Query) -> Page: ...

    async def count(self, query: Query) -> int: ...

    async def settle(self) -> None:
        """Wait until what this process has written is visible to its own queries."""
        ...


class Beats(Protocol):
    """Where heartbeats go: the freshness store. A beat is never a durable write."""

    async def beat(self, seen: Mapping[str, datetime]) -> None:
        """Note when session ids (`sess_…`) and hosts (`host:<agent id>`) were last seen.

        An older instant does replace a newer one: a monitor may report that a file has gone stale. Raises
        `Unavailable` when the store is away.
        """
        ...

    async def last_seen(self, names: Sequence[str]) -> Sequence[datetime | None]: ...

    async def forget(self, names: Sequence[str]) -> None: ...


class Watch(Protocol):
    """Being told that a message or a mailbox moved, instead of asking again."""

    def message(self, ulid: str) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Inside, iterate: one item per event of this message from now on (and at least one per second)."""
        ...

    def inbox(self, agent_id: str) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Inside, iterate: one item per push to this agent's inbox (and at least one per second)."""
        ...


class Announcer(Protocol):
    async def session_attached(self, agent_id: str) -> None:
        """Tell the routers that a live session attached, so that messages waiting for one are offered."""
        ...


class Probe(Protocol):
    async def broker(self) -> None:
        """One publish/echo round trip; raises `Unavailable`."""
        ...

    async def store(self) -> None:
        """One ping of the freshness store; raises `Unavailable`."""
        ...
