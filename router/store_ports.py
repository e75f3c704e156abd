"""What the router keeps beside the ledger: cues, subscriptions, credentials, dead letters and redrives."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from contracts.cues import Cue
from contracts.monitors import Monitor, Revocations, RevokedUser
from contracts.records import Agent, ApiKey, ServiceAccount
from contracts.redrives import DeadLetterFilter, OpenRedrive, Redrive, RedriveRun
from contracts.subscriptions import Subscription, SubscriptionMark, Subscriptions


@dataclass(frozen=True, slots=True, kw_only=True)
class CueHeld:
    """A cue with the sequence a change of it must expect."""

    cue: Cue
    seq: int


class CueStore(Protocol):
    """Cues, as those who fire them use them. Raises `Unavailable` when the directory cannot be asked."""

    async def all(self) -> Sequence[Cue]:
        """Every cue there is; one that cannot be read is left out."""
        ...

    async def get(self, cue_id: str) -> CueHeld | None:
        """The cue as it is now."""
        ...

    async def put(self, cue: Cue, *, expected_seq: int) -> None:
        """Raises `Stale` when somebody else wrote it since."""
        ...

    async def is_granted(self, giver: str, to: str) -> bool:
        """Whether `to` may send to `giver`'s externally addressable agents."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkHeld:
    """A subscription's mark with the sequence a change of it must expect; 0: there is none yet."""

    mark: SubscriptionMark
    seq: int


class SubscriptionStore(Protocol):
    """Subscriptions and their marks, as dispatchers use them."""

    async def agents(self) -> Sequence[str]:
        """The ids of all agents somebody subscribed to."""
        ...

    async def of_agent(self, agent_id: str) -> Subscriptions:
        """May be two seconds old."""
        ...

    async def subscription(self, wanted: Subscription) -> Subscription | None:
        """The subscription as it is now; None when it was given up."""
        ...

    async def mark(self, subscription_id: str) -> MarkHeld: ...

    async def set_mark(self, subscription_id: str, mark: SubscriptionMark, *, expected_seq: int) -> MarkHeld:
        """Raises `Stale` when somebody else wrote it since."""
        ...


class CredentialBook(Protocol):
    """Monitors' credentials, what they stand on, and which are taken back. Raises `Unavailable`."""

    async def monitors(self) -> Sequence[Monitor]:
        """All of them, as they are now."""
        ...

    async def monitor(self, monitor_id: str) -> Monitor | None:
        """As it is now."""
        ...

    async def api_key(self, key_id: str, *, fresh: bool) -> ApiKey | None:
        """This and the next two may be two seconds old unless `fresh`."""
        ...

    async def service_account(self, account_id: str, *, fresh: bool) -> ServiceAccount | None: ...

    async def agent(self, agent_id: str, *, fresh: bool) -> Agent | None: ...

    async def revocations(self, account: str) -> Revocations:
        """As they are now."""
        ...

    async def revise(self, account: str, change: Callable[[Revocations], Revocations]) -> Revocations:
        """Change them by compare-and-set; returns what they are then. `change` may be called again."""
        ...


class Revoker(Protocol):
    """Tells the broker whose credentials count no more."""

    async def enforce(self, account: str, revoked: Sequence[RevokedUser], forgotten: Collection[str]) -> None:
        """Let every server know, where it does not yet: open connections of the revoked end.

        Raises `Unavailable`, with the code `ACCOUNT_UNKNOWN` when the broker has no such account.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterRows:
    """Message views (JSON bytes), and the accept sequence to go on behind; None when there is no more."""

    views: tuple[bytes, ...]
    next_after: int | None


class DeadLetterIndex(Protocol):
    """An owner's messages by how they ended. Raises `Unavailable` rather than answer short."""

    async def page(
        self, owner: str, wanted: DeadLetterFilter, *, after: int | None, limit: int, oldest_first: bool
    ) -> DeadLetterRows:
        """Those with the agent, the states and the channel of `wanted`; its other parts are the caller's to check."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeld:
    """A redrive's run with the sequence a change of it must expect."""

    run: RedriveRun
    seq: int


class RedriveStore(Protocol):
    """Redrives and how far they have got, as routers use them."""

    async def open(self) -> Sequence[OpenRedrive]:
        """Those that have not ended; may be two seconds old."""
        ...

    async def redrive(self, named: OpenRedrive) -> Redrive | None: ...

    async def run(self, redrive_id: str) -> RunHeld | None:
        """As it is now."""
        ...

    async def set_run(self, redrive_id: str, run: RedriveRun, *, expected_seq: int) -> RunHeld:
        """Raises `Stale` when somebody else wrote it since."""
        ...

    async def close(self, named: OpenRedrive) -> None:
        """Take one that has ended off the list of open ones."""
        ...
