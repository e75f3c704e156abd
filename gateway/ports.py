"""What the gateway needs of the world. `infra` implements them."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from contracts.directory import DirectoryRecord
from contracts.freshness import Beat, Signs
from contracts.records import Echo
from contracts.tenant_events import EventFilter, EventPage, StoredEvent, TenantEvent
from contracts.words import Channel, Gate, State
from router.ports import PostResult

T = TypeVar("T", bound=DirectoryRecord)
PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


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

    async def get_all(self, keys: Sequence[str], kind: type[T]) -> "list[Versioned[T] | None]":
        """`get` of many at once, in their order."""
        ...

    async def transact(self, writes: Sequence[Write]) -> None:
        """Write all or nothing. Raises `Stale` when any expectation fails. Other programs see it within two seconds."""
        ...

    async def records(self, pattern: str, kind: type[T]) -> list[T]:
        """The records of all existing keys that match, as they are now."""
        ...

    async def keys(self, pattern: str) -> list[str]:
        """The existing keys that match a pattern such as `slug.max.*`, sorted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A list question, answered newest first unless `oldest_first`.

    `after` is the cursor: the accept sequence of the last row seen. `counterpart` is the agent on the other side: the
    sender where `agent_id` is given, the receiver elsewhere. With `either_side` the owner may be the receiving or the
    sending one. `since` leaves out what was accepted at that instant or before.
    """

    owner: str
    agent_id: str | None = None
    sender_agent_id: str | None = None
    states: tuple[State, ...] = ()
    channel: Channel | None = None
    thread: str | None = None
    counterpart: str | None = None
    priorities: tuple[int, ...] = ()
    since: datetime | None = None
    either_side: bool = False
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

    async def received_before(self, owner: str, instants: Sequence[datetime]) -> tuple[int, ...]:
        """How many messages the owner's agents received before each of these rising instants, and in all.

        An instant is a place in the order of the ledger, so nothing is counted twice or left out between two of them;
        messages of the moments in which gateways' clocks disagree may be on the other side of it.
        """
        ...

    async def settle(self) -> None:
        """Wait until what this process has written is visible to its own queries."""
        ...


ANYBODY: Final = "*"
"""In a `Query` with `either_side`: every owner. No owner can have this name."""


class Urgency(Enum):
    """What becomes of a priority above the usual one."""

    GRANTED = "granted"
    LOWERED = "lowered"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Ration:
    """A refusal says how long it stands."""

    urgency: Urgency
    retry_after_s: float = 0.0


class HighPriorities(Protocol):
    """How many messages of high priority an owner has sent within the last hour, to all and to one receiver."""

    async def take(self, *, owner: str, sender: str, recipient: str, member: str) -> Ration:
        """Count one message and say what becomes of its priority; the same `member` again is not counted again.

        Raises `Unavailable` when the counters cannot be asked.
        """
        ...


class Beats(Protocol):
    """Where heartbeats go: the freshness store. A beat is never a durable write."""

    async def beat(self, seen: Mapping[str, datetime]) -> None:
        """Note when session ids (`sess_…`) and hosts (`host:<agent id>`) were last seen.

        An older instant does replace a newer one: a monitor may report that a file has gone stale. Raises
        `Unavailable` when the store is away.
        """
        ...

    @property
    def known(self) -> int:
        """About how many names the store knows."""
        ...

    async def beat_sessions(self, beats: Sequence[Beat]) -> Sequence[datetime | None]:
        """Note these beats; for each the instant the session counts as heard of at, None where it comes too late.

        Decided and written at once, so that no session that has been silent for too long comes back. A beat within a
        second of the last one changes nothing.
        """
        ...

    async def signs(self, names: Sequence[str]) -> Signs:
        """When these were heard of, and how far their silence counts. Raises `Unavailable`."""
        ...

    async def renew_door(self) -> None:
        """Say that whoever beats can be heard now; a long silence of this before it is an outage, and told as one."""
        ...

    async def last_seen(self, names: Sequence[str]) -> Sequence[datetime | None]: ...

    async def forget(self, names: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeen:
    """A worker that says it lives, and the tasks it handles."""

    worker_id: str
    first_seen_at: datetime
    last_seen_at: datetime
    handlers: tuple[str, ...] = ()


class Workers(Protocol):
    """Who works for an owner, by what workers say of themselves. Raises `Unavailable` when the store is away."""

    async def beat(self, owner: str, worker_id: str, handlers: tuple[str, ...] | None) -> datetime:
        """Note a beat and return its instant; `handlers` None keeps what is known.

        Raises `TooMany` (`too_many_workers`) for one more than an owner may have.
        """
        ...

    async def of_owner(self, owner: str) -> list[WorkerSeen]: ...

    async def forget(self, owner: str, worker_id: str) -> bool:
        """False when there is no such worker."""
        ...


class KeyUses(Protocol):
    """When keys were last used: to the minute, and never more than a help to whoever tidies up."""

    def note(self, key_id: str) -> None:
        """The key is in use now. Returns at once."""
        ...

    async def last_used(self, key_ids: Sequence[str]) -> Sequence[datetime | None]:
        """Raises `Unavailable` when the store is away."""
        ...


class HeldJobs(Protocol):
    """How many jobs a worker has in hand: what keeps it from being given more than it can begin, and never a lock.

    Raises `Unavailable` when the store is away.
    """

    async def count(self, owner: str, worker_id: str) -> int: ...

    async def hold(self, owner: str, worker_id: str, job_id: str, until: datetime) -> None:
        """The worker has the job until then, if nothing is said of it before."""
        ...

    async def drop(self, owner: str, worker_id: str, job_id: str) -> None: ...


class Watch(Protocol):
    """Being told that a message or a mailbox moved, instead of asking again."""

    def message(self, ulid: str) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Inside, iterate: one item after events of this message from now on (and at least one per second)."""
        ...

    def inbox(self, agent_id: str) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Inside, iterate: one item after pushes to this agent's inbox (and at least one per second)."""
        ...

    def background(self, agent_ids: Collection[str] | None) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Inside, iterate: one item after pushes of background work to these agents, None: to any at all.

        At least one per two seconds: what is to be tried again becomes due without a push.
        """
        ...


class EchoPushes(Protocol):
    async def ask(self, question: Echo) -> bool:
        """Publish an echo where live pushes go; False when the broker could not be handed it."""
        ...


class WebhookDoor(Protocol):
    """The way out to receivers, and the signatures on it."""

    async def post(self, *, url: str, secret: str, message_id: str, body: bytes, timeout_s: float) -> PostResult:
        """Sign and POST once. Never raises for what a receiver does or fails to do."""
        ...

    def headers(self, secrets: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
        """What a POST of this body made at `at` carries for its receiver to verify."""
        ...

    def public_key(self, secret: str) -> str | None:
        """What a receiver verifies with; None for a secret that both sides know."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenGuard:
    """A guard that refuses until `retry_at`; from then on it lets one message through to see."""

    gate: Gate
    sender: str | None
    recipient: str | None
    thread: str | None
    retry_at: datetime


class GuardBook(Protocol):
    """The open guards of an owner's agents. Raises `Unavailable` when the store is away."""

    async def open_of(self, owner: str, now: datetime) -> list[OpenGuard]:
        """A thousand at most, those tried first first."""
        ...

    async def reset(self, owner: str, guards: Sequence[OpenGuard]) -> None:
        """Close these guards and fill their budgets."""
        ...

    async def is_first(self, owner: str, gate: Gate, thread: str, *, within_s: int) -> bool:
        """Say whether this gate has refused nothing else in this thread within that time, and note that it has now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Holds `size` tokens at most, and fills with `per_s` of them each second."""

    per_s: float
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens taken out of a bucket, how many it holds still, and when it has one again and all."""

    granted: int
    left: int
    retry_after_s: float
    full_after_s: float


class RateLimits(Protocol):
    """Buckets all gateways of an installation share."""

    async def take(self, name: str, bucket: Bucket, wanted: int) -> Tokens:
        """Take as many of the wanted tokens as there are. Raises `Unavailable` when the store is away."""
        ...


class EventLog(Protocol):
    """The log of tenants' events, as its readers use it. Raises `Unavailable` when the broker is away."""

    async def publish(self, event: TenantEvent) -> None:
        """Append an event that is derived from nothing."""
        ...

    async def read(self, wanted: EventFilter, *, after: int, limit: int) -> EventPage:
        """Events with sequences greater than `after`, oldest first."""
        ...

    def follow(self, wanted: EventFilter, *, after: int) -> AsyncGenerator[Sequence[StoredEvent], None]:
        """The same, and then for ever; an empty batch says "nothing new", about once a second. Close it when done."""
        ...

    async def last_seq(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialTerms:
    """What a monitor's credential says: whose it is, what it opens, and from when until when. Whole seconds count."""

    monitor_id: str
    owner: str
    public_key: str
    subscribe: tuple[str, ...]
    publish: tuple[str, ...]
    issued_at: datetime
    expires_at: datetime


class MonitorSigner(Protocol):
    """Vouches for monitors in the name of the one account of the broker that all of them are in."""

    @property
    def account(self) -> str:
        """Its public key."""
        ...

    def is_user_key(self, text: str) -> bool:
        """Say whether this is a user's public key, checksum included."""
        ...

    def sign(self, terms: CredentialTerms) -> str:
        """The credential: the broker believes it, and whoever has the private key may use it."""
        ...


class TokenKeys(Protocol):
    """The public keys of the OpenID provider, as this process has them."""

    def find(self, kid: str, algorithm: str) -> PublicKey | None:
        """The key of this id for this algorithm, out of memory: the provider is never waited for.

        A miss makes the keys be fetched soon, so that a new one is known within seconds.
        """
        ...
