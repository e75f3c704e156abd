"""What the presence watch needs of the world: whose turn it is, what is on record, and the log it tells to."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from contracts.freshness import Signs
from contracts.records import Agent, LiveSession
from contracts.tenant_events import EventType, StoredEvent, TenantEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsHeld:
    """An agent's sessions with the sequence a change of them must expect; 0: there never were any."""

    sessions: tuple[LiveSession, ...] = ()
    seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceChange:
    """That an agent's record, or that of its sessions, was written; `seq` is the record's."""

    agent_id: str
    seq: int
    is_of_sessions: bool


class PresenceRecords(Protocol):
    """Agents and their sessions, always as they are now. Raises `Unavailable`."""

    async def agent(self, agent_id: str) -> Agent | None: ...

    async def sessions(self, agent_id: str) -> SessionsHeld: ...

    async def set_sessions(self, agent_id: str, sessions: Sequence[LiveSession], *, expected_seq: int) -> None:
        """Raises `Stale` when somebody else wrote them since."""
        ...

    def changes(self, after: int) -> AsyncGenerator[Sequence[PresenceChange], None]:
        """All changes behind `after` in their order, of each record the newest; an empty batch says "nothing new"."""
        ...

    async def last_seq(self) -> int: ...


class Listening(Protocol):
    """When sessions were heard of, and how far their silence counts."""

    async def signs(self, names: Sequence[str]) -> Signs:
        """Raises `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PresencePlace:
    """Up to where the directory's changes were noted. The era ends when the store is emptied."""

    era: str
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """An agent to be looked at, and the proof that this is whose turn it is."""

    agent_id: str
    ticket: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenLooks:
    """`backlog` counts all agents that were due, `is_more` says that there may be more to take at once."""

    looks: tuple[Look, ...]
    is_more: bool
    backlog: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedSession:
    """A connected session as it stood at the last look: that it stands differently makes its agent due."""

    id: str
    attached_at: datetime
    overdue: timedelta
    terminal: timedelta
    is_overdue: bool


class PresenceDue(Protocol):
    """Which agents have to be looked at, and when: what time makes stale. Each method raises `Unavailable`."""

    async def begin(self, last_seq: int) -> PresencePlace:
        """Where to go on; at 0 after the store was emptied, or when the directory ends before that place."""
        ...

    async def note(self, place: PresencePlace, changes: Sequence[PresenceChange]) -> bool:
        """Make these due, and remember `place`; False when another era has begun."""
        ...

    async def look_at(self, agent_ids: Sequence[str]) -> None:
        """Make these due at once."""
        ...

    async def take(self, limit: int) -> TakenLooks:
        """Of the next `limit` that are due those that may have changed. Each is this caller's for a while."""
        ...

    async def settle(self, look: Look, seq: int, watched: Sequence[WatchedSession]) -> bool:
        """Looked at, as of sequence `seq` of its sessions; False when it was made due meanwhile."""
        ...


class PresenceLog(Protocol):
    """The log of events, as who tells of transitions uses it."""

    async def newest(self, owner: str, agent_id: str, kind: EventType) -> StoredEvent | None:
        """The newest event of a kind about an agent. Raises `Unavailable`."""
        ...

    async def publish_behind(self, event: TenantEvent, after: int) -> None:
        """Append it if the newest of its kind about its agent is still the one at `after`; 0: there is none.

        Raises `Stale` when it is not, `Unavailable` when that is unknown.
        """
        ...
