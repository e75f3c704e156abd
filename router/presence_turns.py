"""What a look at an agent's sessions comes to: which are noted as stale, what is told, and what is watched. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from contracts.freshness import Signs, is_past_deadline, terminal_after
from contracts.records import Agent, LiveSession
from contracts.tenant_events import EventType, StoredEvent, TenantEvent
from contracts.words import PresenceWord
from router.explain import instant
from router.presence_ports import WatchedSession
from router.sessions import is_connected, is_overdue, noted_at, overdue_after, presence

NEVER_TOLD: Final = PresenceWord.OFFLINE
"""What an agent is taken to be of which nothing was told yet."""

Sessions = tuple[LiveSession, ...]


def past_deadline(sessions: Iterable[LiveSession], signs: Signs) -> frozenset[str]:
    """The ids of the attached ones that have been silent for too long."""
    return frozenset(each.id for each in sessions if each.is_attached and is_past_deadline(each, signs))


def noted_stale(sessions: Sessions, gone: frozenset[str], now: datetime) -> Sessions:
    """`sessions` with these noted as stale; the oldest live one that remains inherits being the default."""
    at = noted_at(sessions, now)
    rest = tuple(replace(each, stale_at=at, is_default=False) if each.id in gone else each for each in sessions)
    if not any(each.is_default for each in sessions if each.id in gone):
        return rest
    heir = next((each for each in rest if each.is_attached and each.is_live), None)
    return rest if heir is None else tuple(replace(each, is_default=each is heir) for each in rest)


def untold_stale(sessions: Iterable[LiveSession], newest: StoredEvent | None) -> list[tuple[LiveSession, datetime]]:
    """The stale sessions that are to be told behind the newest one told, with the instants they were noted at."""
    noted = [(each, each.stale_at) for each in sessions if each.stale_at is not None]
    noted.sort(key=lambda pair: _place(*pair))
    if newest is None:
        return noted
    told = (newest.data["at"], newest.data["session_id"])
    return [pair for pair in noted if _place(*pair) > told]


def stale_event(agent: Agent, session: LiveSession, noted_at: datetime) -> TenantEvent:
    data = {
        "recipient_agent_id": agent.id,
        "session_id": session.id,
        "label": session.label,
        "transport": session.transport,
        "attached_at": instant(session.attached_at),
        "at": instant(noted_at),
    }
    return TenantEvent(
        id=f"evt_{session.id}_stale",
        type=EventType.SESSION_STALE,
        owner=agent.owner,
        agent_id=agent.id,
        subject=session.id,
        time=noted_at,
        data=data,
    )


def told_presence(newest: StoredEvent | None) -> PresenceWord:
    """What an agent was last told to be."""
    return NEVER_TOLD if newest is None else PresenceWord(newest.data["to"])


def transition(
    agent: Agent, sessions: Sequence[LiveSession], signs: Signs, newest: StoredEvent | None, now: datetime
) -> TenantEvent | None:
    """The event that tells what an agent has become since the newest that told it; None when it is still the same."""
    before, after = told_presence(newest), presence(agent, sessions, signs)
    if before is after:
        return None
    watched = watched_of(agent, sessions, signs)
    overdue = sum(each.is_overdue for each in watched)
    data = {
        "recipient_agent_id": agent.id,
        "slug": agent.slug,
        "from": before.value,
        "to": after.value,
        "sessions": {"connected": len(watched), "overdue": overdue},
        "at": instant(now),
    }
    return TenantEvent(
        id=f"evt_{agent.id}_presence_{newest.seq if newest else 0}",
        type=EventType.AGENT_PRESENCE,
        owner=agent.owner,
        agent_id=agent.id,
        subject=agent.id,
        time=now,
        data=data,
    )


def watched_of(agent: Agent, sessions: Iterable[LiveSession], signs: Signs) -> list[WatchedSession]:
    """The connected sessions as they stand."""
    return [
        WatchedSession(
            id=each.id,
            attached_at=each.attached_at,
            overdue=overdue_after(each, agent),
            terminal=terminal_after(each),
            is_overdue=is_overdue(each, agent, signs),
        )
        for each in sessions
        if is_connected(each, signs)
    ]


def _place(session: LiveSession, noted_at: datetime) -> tuple[str, str]:
    return instant(noted_at) or "", session.id
