"""What the freshness store was told of, under which names, and how long somebody's silence is. Pure.

sess_<ulid>      the session was heard of
host:<agent>     the host's monitor was heard of
echo:<agent>     an echo along the way of the agent's pushes was answered
asked:<agent>    the first echo was asked that has not been answered since, or the last one that was
door             somebody who beats could last be heard
door:from:<n>    the beginning of one of the last times in which nobody could, door:to:<n> its end; 0 is the newest

Silence counts only while somebody listens. A serving gateway renews the mark `door` every second; silence is told
as of that mark and leaves out the last outages, so that no restart makes anybody look silent. All who read the same
marks come to the same answer, whatever their clocks say, and nobody's silence ever becomes shorter but by a beat.
A silence that somebody tells of, as a monitor does of a session on its host, was listened to: all of it counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from contracts.records import LiveSession, SessionFact

HOST: Final = "host:"
ECHO: Final = "echo:"
ASKED: Final = "asked:"
DOOR: Final = "door"
OUTAGES_KEPT: Final = 4
"""Only whoever was silent over all of these and another one looks more silent than it is."""
OUTAGE_NAMES: Final = tuple((f"{DOOR}:from:{number}", f"{DOOR}:to:{number}") for number in range(OUTAGES_KEPT))
DOOR_NAMES: Final = (DOOR, *(name for names in OUTAGE_NAMES for name in names))
LONG_AGO: Final = datetime.fromtimestamp(0, UTC)
NOBODY_LISTENED: Final = datetime(1980, 1, 1, tzinfo=UTC)
"""Where the outage of an emptied store begins. There is time before it, because whoever is said to have been silent for
longer than anybody listened counts as heard of then."""
FIRST_HEARD: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""What is said to have been heard of before was not: it only says how long a silence is."""
GONE_FOR: Final = timedelta(hours=2)
"""How silent whoever is known to be gone counts as: more than any agent waits (3 600 s), and less than a live session's
last deadline, for its host may come back."""
NO_TIME: Final = timedelta(0)

OVERDUE_S: Final = 60
"""Two missed beats of a worker that beats every 30 s."""
TERMINAL_S: Final = 90
"""Three of them."""
LIVE_TERMINAL_S: Final = 86_400
"""Live sessions go quiet and come back, as laptops do; how soon one is too quiet for pushes is its agent's to say."""


def host_name(agent_id: str) -> str:
    return f"{HOST}{agent_id}"


def echo_name(agent_id: str) -> str:
    return f"{ECHO}{agent_id}"


def asked_name(agent_id: str) -> str:
    return f"{ASKED}{agent_id}"


class GoneSince(datetime):
    """When somebody was last heard of who is known to be gone: a threshold need not pass for it. A beat ends that."""


def is_gone(seen_at: datetime) -> bool:
    return isinstance(seen_at, GoneSince)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A time in which nobody could beat."""

    begins_at: datetime
    ends_at: datetime

    def within(self, begins_at: datetime, ends_at: datetime) -> timedelta:
        """How much of the outage lies between two instants."""
        return max(NO_TIME, min(ends_at, self.ends_at) - max(begins_at, self.begins_at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """One session's sign of life, and what it takes to say whether it comes too late."""

    session_id: str
    seen_at: datetime
    attached_at: datetime
    terminal: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """When sessions and hosts were heard of, as of the instant up to which their silence counts."""

    as_of: datetime
    heard: Mapping[str, datetime | None] = field(default_factory=dict)
    outages: tuple[Outage, ...] = ()

    def seen_at(self, session: LiveSession) -> datetime:
        """When a session was last heard of. Attaching is a sign of life; what was reported later outweighs it."""
        return self.heard.get(session.id) or session.attached_at

    def shown_at(self, name: str) -> datetime | None:
        """When somebody was heard of, as people read it."""
        heard_at = self.heard.get(name)
        if heard_at is None or heard_at >= FIRST_HEARD:
            return heard_at
        return self.as_of - self.listened(heard_at)

    def silence(self, seen_at: datetime) -> timedelta:
        """How long whoever was seen then counts as silent. Never negative."""
        silence = self.listened(seen_at)
        return max(silence, GONE_FOR) if is_gone(seen_at) else silence

    def listened(self, seen_at: datetime) -> timedelta:
        """How long whoever was seen then has been silent although somebody listened. Never negative."""
        silence = self.as_of - seen_at
        for outage in self.outages:
            if seen_at < outage.ends_at:
                silence -= outage.within(seen_at, self.as_of)
        return max(NO_TIME, silence)

    def counted_at(self, seen_at: datetime, now: datetime) -> datetime:
        """When whoever was seen then would have been seen who is as silent now, had there been no outage."""
        return now - self.silence(seen_at)

    def fact_of(self, session: LiveSession, now: datetime) -> SessionFact:
        """What the router's gates are told of a session: how long it has been silent, and not how long it counts as."""
        seen_at = self.seen_at(session)
        return SessionFact(
            id=session.id,
            label=session.label,
            is_default=session.is_default,
            last_seen_at=now - self.listened(seen_at),
            echoes=session.echoes,
            is_gone=is_gone(seen_at),
        )


NOTHING_KNOWN: Final = Signs(as_of=LONG_AGO)
"""While the store is away nobody's silence counts."""


def signs_of(heard: Mapping[str, datetime | None], now: datetime) -> Signs:
    """What `heard` says, all of `DOOR_NAMES` included. Without the mark `door` the store was emptied a moment ago."""
    door = heard.get(DOOR)
    marks = [(heard.get(begin), heard.get(end)) for begin, end in OUTAGE_NAMES]
    outages = tuple(Outage(begins_at=begin, ends_at=end) for begin, end in marks if begin and end)
    return Signs(as_of=min(now, door) if door else LONG_AGO, heard=heard, outages=outages)


def terminal_after(session: LiveSession) -> timedelta:
    """How long a session may be silent before it is stale for good."""
    usual = LIVE_TERMINAL_S if session.is_live else TERMINAL_S
    return timedelta(seconds=session.terminal_s or usual)


def is_past_deadline(session: LiveSession, signs: Signs) -> bool:
    """Say whether an attached session has been silent for too long to come back. Nothing reverses that."""
    return signs.silence(signs.seen_at(session)) > terminal_after(session)


def beat_of(session: LiveSession, seen_at: datetime) -> Beat:
    return Beat(
        session_id=session.id, seen_at=seen_at, attached_at=session.attached_at, terminal=terminal_after(session)
    )
