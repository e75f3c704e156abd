"""Redrives: dead letters delivered once more, many at a time: what was asked, and how far it has got.

redrive.<owner>.<ulid>   Redrive        what was asked; it never changes
redrun.<ulid>            RedriveRun     how far it has got, and who works on it until when
redrives                 OpenRedrives   those that have not ended: where routers look for work
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from contracts.words import DEAD_LETTER_STATES, Channel, Reason, State, Word

FAILED: Final = State.DELIVERED
"""In a filter: what reached its receiver, who said that it failed. No dead letter, and chosen only by this name."""
SELECTABLE_STATES: Final[tuple[State, ...]] = (*(state for state in State if state in DEAD_LETTER_STATES), FAILED)
OPEN_KEY: Final = "redrives"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which dead letters. None and empty ask for nothing; `since` and `until` bound when they ended, inclusive."""

    agent_id: str | None = None
    states: tuple[State, ...] = ()
    reasons: tuple[Reason, ...] = ()
    channel: Channel | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def wanted_states(self) -> tuple[State, ...]:
        return self.states or tuple(state for state in SELECTABLE_STATES if state is not FAILED)


class RedriveState(Word):
    """`CANCELLING` ends as `CANCELLED` once what was in hand is counted."""

    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrive:
    """What was asked: the dead letters of one owner that fit `wanted`, or those named, ended before `created_at`."""

    id: str
    owner: str
    created_at: datetime
    created_by: str
    rate_per_s: float
    wanted: DeadLetterFilter | None = None
    message_ids: tuple[str, ...] = ()
    matched: int
    matched_is_exact: bool = True

    @property
    def author(self) -> str:
        """Who the ledger says replayed its messages: what was replayed by it already is known by this name."""
        return f"redrive:{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedFor:
    """How many messages were refused for one reason."""

    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveRun:
    """How far a redrive has got.

    `in_hand` are the ulids being worked on: written down before the first of them is touched, so that whoever takes
    over knows which to look up. `position` is behind the last of them: an accept sequence, or a place in
    `Redrive.message_ids`; None before the first. `is_last`: nothing follows what is in hand.
    """

    state: RedriveState = RedriveState.RUNNING
    position: int | None = None
    in_hand: tuple[str, ...] = ()
    is_last: bool = False
    redriven: int = 0
    moved_on: int = 0
    refused: tuple[RefusedFor, ...] = ()
    holder: str | None = None
    held_until: datetime | None = None
    updated_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def done(self) -> int:
        return self.redriven + self.moved_on + sum(each.count for each in self.refused)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRedrive:
    owner: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRedrives:
    """The redrives of all owners that have not ended, oldest first."""

    items: tuple[OpenRedrive, ...] = ()


def redrive_key(owner: str, redrive_id: str) -> str:
    return f"redrive.{owner}.{redrive_id.removeprefix('redrive_')}"


def run_key(redrive_id: str) -> str:
    return f"redrun.{redrive_id.removeprefix('redrive_')}"
