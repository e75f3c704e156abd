"""What the router needs of the world, each port as narrow as its use; more in `presence_ports`, `store_ports`."""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from contracts.events import Event, History, Stored
from contracts.freshness import Signs
from contracts.records import Agent, Envelope, LiveSession, Principal, Reachability, ServiceAccount
from contracts.tenant_events import EventFilter, EventPage, LogPlace, StoredEvent, TenantEvent
from contracts.words import Channel, Gate, State


class Ledger(Protocol):
    """Where every state of every message is decided: one subject per message, changed by compare-and-set."""

    async def append(self, ulid: str, event: Event, *, expected_seq: int) -> int:
        """Append `event` if the subject's last sequence is still `expected_seq` (0: the subject is empty).

        Returns the event's sequence after the broker's own durable acknowledgement. An answer that never came is
        resolved by reading the subject. Raises `Stale` when something else is there, `Unavailable` when the broker
        cannot be asked; after `Unavailable` with code `accept_unknown` the event may yet be there.
        """
        ...

    async def load(self, ulid: str, *, fresh: bool = True) -> History | None:
        """All events of one message, or None when there is none.

        With `fresh=False` the answer may be a remembered one: good enough to attempt an append, whose compare-and-set
        finds it out; never good enough to refuse somebody something.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One event as the tail of the ledger tells it. `n_bytes` is the size of its record."""

    ulid: str
    stored: Stored
    n_bytes: int = 0


class LedgerTail(Protocol):
    """The ledger read in the order of its sequence: gap-free, for as long as one likes."""

    def follow(self, after_seq: int) -> AsyncGenerator[Sequence[Moved], None]:
        """Yield batches of events with sequences greater than `after_seq`; an empty batch says "nothing new".

        Survives restarts of the broker: it goes on after the last event it yielded. Close it when done.
        """
        ...

    async def last_seq(self) -> int:
        """The sequence of the newest event in the ledger, 0 when it is empty."""
        ...


class Pushes(Protocol):
    """The way to monitors: fire and forget. A lost push costs time and nothing else."""

    async def push(self, envelope: Envelope) -> bool:
        """Publish; False when the broker could not be handed the envelope."""
        ...


class Freshness(Protocol):
    """When sessions and hosts were last heard of."""

    async def reachability(self, agent_id: str, sessions: Sequence[LiveSession]) -> Reachability:
        """Never raises: when the store does not answer, `known` is False."""
        ...

    async def reachabilities(
        self, sessions: Mapping[str, Sequence[LiveSession]]
    ) -> tuple[Mapping[str, Reachability], Signs | None]:
        """The same for many agents by id, in one question, and the signs it was read off; None: no answer.

        Takes all their attached sessions: those that pushes do not go to have signs, and no part in the rest.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSessions:
    """The sessions in one part of what a monitor beats for."""

    monitor_id: str
    part: int
    session_ids: Sequence[str]


class SessionNotes(Protocol):
    """Where beats are noted that came over the broker. Each raises `Unavailable`."""

    async def note(self, seen: Mapping[str, int], held: Iterable[HeldSessions]) -> None:
        """Note when attached sessions were heard of, in epoch milliseconds, and who holds which."""
        ...

    async def end(self, monitor_id: str) -> Sequence[str]:
        """Note that all sessions a monitor holds are gone, until they beat again; their ids."""
        ...


class ConnectionListener(Protocol):
    """Whoever is told which connections the broker has. A client is described as the broker does; nothing may raise."""

    def opened(self, server_id: str, client: Mapping[str, Any]) -> None: ...

    def closed(self, server_id: str, client: Mapping[str, Any], reason: str) -> None: ...

    def lost(self) -> None:
        """From now on some may be missed, and what is open is unknown."""
        ...

    def asked(self) -> None:
        """The broker is being asked for all of them; what opens and closes is told of meanwhile too."""
        ...

    def present(self, clients: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """All there were a moment ago, with the server of each."""
        ...


class Workloads(Protocol):
    """How busy agents are."""

    async def open_at(self, agents: Sequence[Agent]) -> tuple[int, ...] | None:
        """How many open executions each has, those put off until later apart; in one question.

        Never raises: None when the store does not answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """So many messages within a time, refilled steadily; counted under `owner` for the agents and thread it names.

    Used up, it opens for `cool_down_s` seconds and refuses everything; then one message per cool-down is let through,
    and the first that is stored closes it. With a cool-down of 0 it never opens, it is only empty.
    """

    gate: Gate
    owner: str
    sender: str | None = None
    recipient: str | None = None
    thread: str | None = None
    limit: int
    window_s: float
    cool_down_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetFact:
    """What was counted. `has_opened`: the budget was used up and opened just now, for this very message.

    `is_probe`: the one message by which an open budget is tried.
    """

    admits: bool
    has_opened: bool = False
    remaining: int = 0
    retry_after_s: float = 0
    is_probe: bool = False


class Budgets(Protocol):
    """Where the guards count."""

    async def ask(self, budgets: Sequence[Budget], *, spend: bool) -> tuple[BudgetFact, ...] | None:
        """What each budget says; with `spend` all of them are spent, or none when one refuses.

        Never raises: None when the store does not answer.
        """
        ...

    async def close(self, budgets: Sequence[Budget]) -> None:
        """A probe of these came through. Never raises: a guard left open is tried again."""
        ...


class DigestBook(Protocol):
    """How far an agent's messages of low priority have been told in digests."""

    async def newest(self, owner: str, agent_id: str) -> StoredEvent | None:
        """The agent's newest digest in the log of events. Raises `Unavailable`."""
        ...


class Directory(Protocol):
    """Read access to who exists. Answers may be up to two seconds old."""

    async def agent(self, agent_id: str) -> Agent | None: ...

    async def service_account(self, account_id: str) -> ServiceAccount | None: ...

    async def live_sessions(self, agent_id: str) -> tuple[LiveSession, ...]:
        """The attached sessions of an agent that pushes go to."""
        ...

    async def attached(self, agent_id: str) -> tuple[LiveSession, ...]:
        """The attached sessions of an agent, of all transports."""
        ...

    async def disable_webhook(self, agent: Agent, at: datetime, reason: str) -> bool:
        """Nothing more is posted to this URL until its owner enables it; False when it was disabled, or changed."""
        ...

    async def note_webhook(self, agent: Agent, failing_since: datetime | None) -> None:
        """Note since when the receiver at this URL has taken nothing; None: it took something."""
        ...


class Authorizer(Protocol):
    def __call__(self, principal: Principal, action: str, owner: str, agent: Agent | None = None) -> bool:
        """Say whether `principal` may do `action` to something of `owner`; `agent`: the one it concerns, if one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One message as queries see it: what to filter by, and the view to show (JSON bytes, with body, without trace)."""

    ulid: str
    seq: int
    accept_seq: int
    owner: str
    agent_id: str
    sender_agent_id: str | None
    sender_owner: str
    channel: Channel
    state: State
    thread: str
    priority: int
    accepted_at: datetime
    view: bytes


class Projection(Protocol):
    """Where rows are written for queries. Derived from the ledger; guarded by sequence, so an old row never wins."""

    def write(self, row: Row) -> None:
        """Queue a row; returns at once. Rows that cannot be written are left to the router's replay."""
        ...

    async def missing(self, heads: Sequence[tuple[str, int]]) -> list[str]:
        """Of (ulid, sequence) pairs, the ulids whose row is older than that sequence or absent."""
        ...

    async def settle(self) -> None:
        """Wait until the rows queued so far are visible (bounded; returns also when the store is away)."""
        ...

    async def epoch(self) -> int | None:
        """The marker: messages accepted at or before it have ended and their rows are written.

        None after the store was emptied: nothing is known, and lists are refused until `set_epoch`.
        """
        ...

    async def set_epoch(self, seq: int) -> None:
        """Move the marker on. Does nothing when the store was emptied or set back since `epoch` was asked."""
        ...

    async def incarnation(self) -> str:
        """Changes when the store's process was restarted, which may have cost it its last second of rows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PostResult:
    """What came of one signed POST. `status` is None when there was no answer; `error` is a stable code then.

    A redirect has both: its status, and `redirect_not_followed`.
    """

    status: int | None
    latency_ms: int
    error: str | None = None
    retry_after_s: float | None = None
    excerpt: str = ""


class WebhookSender(Protocol):
    async def post(self, *, url: str, secret: str, message_id: str, body: bytes, timeout_s: float) -> PostResult:
        """Sign (Standard Webhooks) and POST once. Never raises for what a receiver does or fails to do."""
        ...


class EventLog(Protocol):
    """The log of tenants' events, as its writers and dispatchers use it."""

    async def place(self) -> LogPlace:
        """Where a writer goes on."""
        ...

    async def append(self, events: Sequence[TenantEvent], place: LogPlace) -> LogPlace:
        """Append all or nothing, if the log still ends at `place`; the place after them.

        Raises `Stale` when it does not, `Unavailable` when that is unknown or the broker is away.
        """
        ...

    async def publish(self, event: TenantEvent) -> None:
        """Append an event that is derived from nothing. Raises `Unavailable`."""
        ...

    async def read(self, wanted: EventFilter, *, after: int, limit: int) -> EventPage:
        """Events with sequences greater than `after`, oldest first. Raises `Unavailable`."""
        ...

    def follow_all(self, *, after: int) -> AsyncGenerator[Sequence[tuple[str, str, str]], None]:
        """(owner, agent, type) of every event behind `after`; an empty batch says "nothing new"."""
        ...

    async def last_seq(self) -> int: ...
