"""Cues: messages on a schedule or on demand, as stored, and the keys and names that make each of them happen once.

cue.<ulid>               Cue         what is sent, when, and how far it has got
cues.<owner>.<ulid>      CueEntry    that an owner has it: what lists are made from
cuename.<owner>.<sha>    CueName     which cue bears a name: its key is created, so a name is borne once
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from contracts.ids import ulid_for_key
from contracts.records import JsonObject, Wish
from contracts.words import Word

MARK: Final = "_cue"
"""Where a message's metadata names the cue it comes from. Clients cannot write there: `_` is a reserved prefix."""
_SEPARATOR: Final = "\x1f"
"""In the Idempotency-Keys of fires, and in none a client can send: those are printable."""


class CueStatus(Word):
    """`ENDED`: its schedule has no further instant."""

    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"


class Transport(Word):
    """Who is sent the message: an agent, a URL, or whichever worker of the owner takes it."""

    AGENT = "agent"
    WEBHOOK = "webhook"
    WORKER = "worker"


class Misfire(Word):
    """What becomes of instants that passed while nobody could fire them. All others are recorded as missed."""

    FIRE_LATEST = "fire_latest"
    FIRE_ALL = "fire_all"
    SKIP = "skip"


class CueTrigger(Word):
    SCHEDULED = "scheduled"
    MANUAL = "manual_fire"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A cron expression in a time zone, one instant, or neither: then it fires on demand only."""

    cron: str | None = None
    at: datetime | None = None
    timezone: str = "UTC"

    @property
    def is_on_demand(self) -> bool:
        return self.cron is None and self.at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnFailure:
    """What a failed fire sets off. `agent_id` is told; `hook_agent_id` is the hidden agent behind `webhook_url`."""

    email: bool = True
    webhook_url: str | None = None
    hook_agent_id: str | None = None
    to: str | None = None
    agent_id: str | None = None
    pause: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """One fire, from its decision to its end. `ulid` names its message; `state` and `is_success` are its end's."""

    ulid: str
    scheduled_for: datetime
    decided_at: datetime
    trigger: CueTrigger = CueTrigger.SCHEDULED
    ended_at: datetime | None = None
    state: str | None = None
    is_success: bool | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """A cue. What clients set, then what firing it has come to.

    `agent_id` is the receiver: an agent that was named, or the cue's own hidden one. `next_fire_at` is the next instant
    of its schedule, None when there is none or it is paused. An instant up to `last_fire_at` is never fired again.
    """

    id: str
    owner: str
    key_id: str
    name: str
    created_at: datetime
    updated_at: datetime
    transport: Transport
    agent_id: str
    description: str | None = None
    status: CueStatus = CueStatus.ACTIVE
    schedule: Schedule = Schedule()
    to: str | None = None
    callback_url: str | None = None
    wish: Wish = field(default_factory=Wish)
    subject: str | None = None
    message: str | None = None
    payload: JsonObject = field(default_factory=dict)
    retry: JsonObject = field(default_factory=dict)
    on_failure: OnFailure = OnFailure()
    misfire: Misfire = Misfire.FIRE_LATEST
    misfire_grace_s: int = 3_600

    next_fire_at: datetime | None = None
    last_fire_at: datetime | None = None
    fires: tuple[Fire, ...] = ()
    n_fired: int = 0
    n_missed: int = 0
    n_succeeded: int = 0
    n_failed: int = 0
    consecutive_failures: int = 0
    missed: tuple[datetime, ...] = ()

    @property
    def open_fires(self) -> tuple[Fire, ...]:
        return tuple(each for each in self.fires if each.ended_at is None)

    @property
    def has_own_agent(self) -> bool:
        return self.transport is not Transport.AGENT


@dataclass(frozen=True, slots=True, kw_only=True)
class CueEntry:
    """That an owner has a cue."""

    cue_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CueName:
    """Which cue bears a name."""

    cue_id: str


def cue_key(cue_id: str) -> str:
    return f"cue.{cue_id.removeprefix('cue_')}"


def cue_entry_key(owner: str, cue_id: str) -> str:
    return f"cues.{owner}.{cue_id.removeprefix('cue_')}"


def cue_name_key(owner: str, name: str) -> str:
    return f"cuename.{owner}.{hashlib.sha256(name.encode()).hexdigest()}"


def fire_key(cue_id: str, scheduled_for: datetime) -> str:
    """The Idempotency-Key of the fire at this instant: whoever fires it, however often, makes one message."""
    return _SEPARATOR.join(("cue", cue_id, scheduled_for.isoformat()))


def manual_key(cue_id: str, once: str) -> str:
    """The Idempotency-Key of a fire on demand."""
    return _SEPARATOR.join(("cue", cue_id, "manual", once))


def alert_key(cue_id: str, fire_ulid: str, agent_id: str) -> str:
    """The Idempotency-Key of the message that tells this agent of a fire's failure."""
    return _SEPARATOR.join(("cue", cue_id, "failed", fire_ulid, agent_id))


def fire_ulid(owner: str, cue_id: str, scheduled_for: datetime) -> str:
    return ulid_for_key(owner, fire_key(cue_id, scheduled_for))
