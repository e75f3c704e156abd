"""What the monitor needs of the world, each port as narrow as its use. `infra` implements them.

The state directory, which monitor and sessions share:

    sessions/<agent slug>/<label>/            0700, made by the session; removing it detaches
        heartbeat                             touched by the session
        session.json                          the sidecar: who this session is, written at each attach
        offers/<execution>.json               monitor ▶ session: may be claimed until `claim_before`
        claims/<execution>.json               session ▶ monitor: `{execution_id, session_token}`
        deliveries/<execution>.json           monitor ▶ session: won; the message
        refusals/<execution>.json             monitor ▶ session: not won, or not accepted; the code
        in_context/<execution>.json           session ▶ monitor: its turn has taken the message; holds nothing
        outcomes/<execution>.json             session ▶ monitor: `{success, result, error, metadata, executed_via}`
        done/ · bad/                          outcomes the gateway took · files nobody could use
    claimed/ · outbox/ · runs/                the monitor's own journals
    work/                                     fresh working directories of background runs
"""

import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from contracts.records import Echo, Envelope, JsonObject
from contracts.words import Channel

LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?\Z")
"""A session's label as the name of its folder: narrower than what the gateway takes, and safe in every file system."""
HEARTBEAT: Final = "heartbeat"
SIDECAR: Final = "session.json"


class Box(StrEnum):
    """The folders inside a session's folder."""

    OFFERS = "offers"
    CLAIMS = "claims"
    DELIVERIES = "deliveries"
    REFUSALS = "refusals"
    IN_CONTEXT = "in_context"
    OUTCOMES = "outcomes"
    DONE = "done"
    BAD = "bad"


class Shelf(StrEnum):
    """The monitor's own journals: what a restarted monitor must know of."""

    CLAIMED = "claimed"
    OUTBOX = "outbox"
    RUNS = "runs"


# --- the gateway ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedAgent:
    """An agent this monitor serves, as the gateway describes it."""

    id: str
    slug: str
    address: str
    heartbeat_age_s: int
    claim_window_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What the gateway said about an attach. `session_id` names it, and is no secret.

    With `beat_proof` the monitor beats for it over the broker.
    """

    session_id: str
    is_default: bool
    beat_proof: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An execution that waits for us, told by a push or found by the poll.

    `served_at` is the server's clock when it said so: with `claim_before` it gives the length of the window, whatever
    our own clock shows.
    """

    execution_id: str
    message_id: str
    agent_id: str
    channel: Channel
    nonce: str | None
    claim_before: datetime | None
    served_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """A background execution that is ours until the lease ends. `number` is the fence."""

    execution_id: str
    number: int
    attempt: int
    message: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of an execution, as it is posted."""

    success: bool
    result: object = None
    error: str | None = None
    metadata: JsonObject = field(default_factory=dict)
    executed_via: str | None = None
    lease: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerLogin:
    """A credential for one key of ours: what it opens, how long it lives, and when to ask for the next.

    `nats_url` is where the gateway says the broker is, None when it does not say.
    """

    jwt: str = field(repr=False)
    subjects: frozenset[str]
    lives_s: float
    renew_after_s: float
    nats_url: str | None


ECHOES_PER_CALL: Final = 1_000
SESSIONS_PER_CALL: Final = 1_000
"""What the gateway takes in one call."""


class Gateway(Protocol):
    """The gateway's HTTP interface.

    Every call raises `Unavailable` when the same request may succeed later, and the other errors of
    `contracts.errors` with the gateway's code when it will not.
    """

    async def agent(self, ref: str) -> HostedAgent: ...

    async def broker_login(self, monitor_id: str, public_key: str, agent_ids: Sequence[str]) -> BrokerLogin:
        """Credentials to hear these agents' pushes with: for all of them or, as a refusal, for none."""
        ...

    async def attach(self, agent_id: str, label: str, session_token: str, monitor_id: str) -> Attached:
        """Attach with attestation `token+nonce`, as a session that echoes and that this monitor beats for.

        `Conflict` (`live_session_conflict`): the label is attached.
        """
        ...

    async def detach(self, agent_id: str, label: str) -> None: ...

    async def beat_sessions(self, ages_s: Mapping[str, float]) -> Collection[str]:
        """Report beats by session id, so many seconds old; the ids of those that have ended.

        `SESSIONS_PER_CALL` sessions at most.
        """
        ...

    async def beat_host(self, host_id: str, agent_ids: Sequence[str], echoing: Sequence[str]) -> None:
        """Say that the host lives for the agents it runs work of, and let the way to its `echoing` ones be tried."""
        ...

    async def echo(self, due: Mapping[str, str | None]) -> None:
        """Say by agent which echo arrived; with None, ask for one. `ECHOES_PER_CALL` agents at most."""
        ...

    async def claimable(self, agent_id: str) -> Sequence[Waiting]: ...

    async def live_claim(self, execution_id: str, session_token: str, nonce: str | None) -> JsonObject:
        """Claim for a session; returns the answer with `message`, `level` and `outcome_before`."""
        ...

    async def lease(self, execution_id: str, worker_id: str, lease_s: int) -> Leased: ...

    async def lease_next(self, agent_id: str, worker_id: str, lease_s: int) -> Leased | None: ...

    async def extend(self, execution_id: str, number: int, lease_s: int) -> None: ...

    async def release(self, execution_id: str, number: int, reason: str, detail: str | None) -> None: ...

    async def in_context(self, execution_id: str, lease: int | None) -> None:
        """Say that the message was taken: under this lease, or with None by the session that claimed it."""
        ...

    async def outcome(self, execution_id: str, report: Report) -> None: ...


# --- the broker ----------------------------------------------------------------------------------------------------


class PushFeed(Protocol):
    """What the broker pushes to this host, and the heartbeats that go the other way.

    Lossy by design: the poll, and the beats over HTTPS, cover what is missed.
    """

    async def follow(
        self,
        subjects: Sequence[str],
        heard: Callable[[Envelope], None],
        subscribed: Callable[[], None],
        echoed: Callable[[Echo], None],
    ) -> None:
        """Listen until cancelled, through every restart of the broker.

        `subscribed` is called after each time the broker confirmed all subscriptions: whatever was pushed before may
        have been missed. `echoed` is told of the echoes among the pushes. No callable may block or raise.
        """
        ...

    @property
    def is_speaking(self) -> bool:
        """Say whether there is a connection, and the broker has refused nothing we said on it."""
        ...

    async def say(self, subject: str, payload: bytes) -> bool:
        """Hand a message to the connection; False when it cannot be said now. Nothing is kept for later."""
        ...


class Link(Protocol):
    """A way to the broker that is about to be opened. Its private key never leaves this process."""

    @property
    def public_key(self) -> str: ...

    def feed(self, url: str, jwt: str) -> PushFeed:
        """What it carries once the gateway has vouched for the key."""
        ...


# --- files ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class FolderName:
    """Which session folder: `sessions/<slug>/<label>`."""

    slug: str
    label: str

    def __str__(self) -> str:
        return f"{self.slug}/{self.label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatReading:
    """What the heartbeat file says. Neither field set: there is none. `unsafe` says why its time does not count."""

    touched_at: datetime | None = None
    unsafe: str | None = None


class Spool(Protocol):
    """The session folders. What comes from a session is read with suspicion and never followed through a link."""

    def prepare(self, slug: str) -> None:
        """Make the folder sessions of this agent put theirs into."""
        ...

    def folders(self, slug: str) -> Sequence[FolderName]:
        """The agent's session folders that are safe to use, in order of their labels; at most 100."""
        ...

    def heartbeat(self, folder: FolderName) -> HeartbeatReading: ...

    def names(self, folder: FolderName, box: Box) -> Sequence[str]:
        """The execution ids with a file in `box`, oldest first; at most 1 000. Other names are not looked at."""
        ...

    def read(self, folder: FolderName, box: Box, execution_id: str) -> JsonObject | None:
        """The file's JSON object; None when it is gone. Raises `Malformed` with a code that says what is wrong."""
        ...

    def write(self, folder: FolderName, box: Box, execution_id: str, document: JsonObject) -> None:
        """Put a file there at once and whole. A folder that has been removed meanwhile is fine: nothing happens."""
        ...

    def move(self, folder: FolderName, execution_id: str, source: Box, target: Box) -> None: ...

    def remove(self, folder: FolderName, box: Box, execution_id: str) -> None: ...

    def write_sidecar(self, folder: FolderName, document: JsonObject) -> None: ...

    def has_sidecar(self, folder: FolderName) -> bool: ...

    def remove_sidecar(self, folder: FolderName) -> None: ...

    def changes(self) -> AsyncIterator[None]:
        """One item whenever something below `sessions/` may have changed. Endless; may miss changes."""
        ...


class Journal(Protocol):
    """The monitor's own notes, one JSON object per execution and shelf; durable once `put` returns."""

    def put(self, shelf: Shelf, execution_id: str, document: JsonObject) -> None: ...

    def get(self, shelf: Shelf, execution_id: str) -> JsonObject | None: ...

    def names(self, shelf: Shelf) -> Sequence[str]: ...

    def drop(self, shelf: Shelf, execution_id: str) -> None: ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the state directory for one monitor. Raises `Conflict` (`state_dir_in_use`)."""
        ...


# --- programs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One background run. `env` is the whole environment; `cwd` None means a fresh directory that is removed after."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path | None
    limits: Mapping[str, int]
    wall_timeout_s: float
    output_cap_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A process by its number and start time: the number alone may have gone to somebody else."""

    pid: int
    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a run ended. `exit_code` is None when it was never started; negative when a signal ended it."""

    exit_code: int | None
    timed_out: bool = False
    spawn_error: str | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False
    duration_ms: int = 0


class Programs(Protocol):
    """Processes that never outlive their run."""

    async def run(
        self,
        program: Program,
        line: bytes,
        marker: str,
        started: Callable[[Started], None],
        taken: Callable[[], None],
    ) -> Run:
        """Start it, give it `line` on standard input, and wait; nothing of it is left afterwards, cancelled or not.

        `marker` is the value of `EXECUTION_ID` in `program.env`: descendants that left the group are known by it.
        `taken` is called once, when the program has read the whole line; never for one that does not.
        """
        ...

    async def end_leftover(self, started: Started, marker: str) -> bool:
        """Kill what a monitor that died left behind; True when there was something."""
        ...

    def sweep(self) -> None:
        """Remove the working directories such a monitor left behind."""
        ...
