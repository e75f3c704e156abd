"""How long ago something was heard of, in numbers and in words, and what that makes of an agent. Pure.

online    a live session or the host's monitor was heard of within the agent's own `heartbeat_age_sec`
away      heard of within half an hour
offline   anything else, and every inactive agent
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from contracts.freshness import Signs, host_name
from contracts.records import Agent, LiveSession
from contracts.words import AgentStatus

JUST_NOW_S: Final = 5
AWAY_S: Final = 1_800
ACTIVE_NOW: Final = "active now"
NEVER: Final = "never"
# Few and ever wider: a text made of them changes a handful of times after an agent has fallen silent. What is older
# than a day has left the freshness store.
_BUCKETS: Final = (
    (86_400, "1d ago"),
    (21_600, "6h ago"),
    (3_600, "1h ago"),
    (1_800, "30m ago"),
    (300, "5m ago"),
    (0, "1m ago"),
)
_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def age_s(seen_at: datetime | None, now: datetime) -> int | None:
    """Whole seconds since `seen_at`, never negative; None when it was never seen."""
    return None if seen_at is None else max(0, int((now - seen_at).total_seconds()))


def is_fresh(seen_at: datetime | None, now: datetime, *, max_age_s: int) -> bool:
    """Say whether something was seen at most `max_age_s` seconds ago; what was never seen is not fresh."""
    return seen_at is not None and (now - seen_at).total_seconds() <= max_age_s


def in_words(seen_at: datetime | None, now: datetime) -> str:
    """`never`, `just now`, `3 minutes ago`: for people, so rounded down to the largest unit that fits."""
    age = age_s(seen_at, now)
    if age is None:
        return "never"
    if age < JUST_NOW_S:
        return "just now"
    size, unit = next((size, unit) for size, unit in _UNITS if age >= size)
    count = age // size
    return f"{count} {unit}{'' if count == 1 else 's'} ago"


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """What an agent's signs of life make of it. `seen`: when it was last heard of, in words that hold for a while."""

    status: str
    seen: str
    last_seen_at: datetime | None

    @property
    def is_online(self) -> bool:
        return self.status == "online"


def signs_of_life(agent: Agent, sessions: Sequence[LiveSession], signs: Signs, now: datetime) -> list[datetime | None]:
    """When an agent's sessions and its host were heard of, the time of outages not counted."""
    host_seen_at = signs.heard[host_name(agent.id)]
    return [
        host_seen_at and signs.counted_at(host_seen_at, now),
        *(signs.counted_at(signs.seen_at(session), now) for session in sessions),
    ]


def presence_of(agent: Agent, signs: Iterable[datetime | None], now: datetime) -> Presence:
    """What the newest of these signs of life says."""
    seen_at = max((each for each in signs if each is not None), default=None)
    return Presence(status=_status(agent, seen_at, now), seen=_bucket(agent, seen_at, now), last_seen_at=seen_at)


def _status(agent: Agent, seen_at: datetime | None, now: datetime) -> str:
    if agent.status is not AgentStatus.ACTIVE:
        return "offline"
    if is_fresh(seen_at, now, max_age_s=agent.heartbeat_age_sec):
        return "online"
    return "away" if is_fresh(seen_at, now, max_age_s=AWAY_S) else "offline"


def _bucket(agent: Agent, seen_at: datetime | None, now: datetime) -> str:
    age = age_s(seen_at, now)
    if age is None:
        return NEVER
    if is_fresh(seen_at, now, max_age_s=agent.heartbeat_age_sec):
        return ACTIVE_NOW
    return next(words for least_s, words in _BUCKETS if age >= least_s)
