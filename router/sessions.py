"""Where a session stands, what an agent's sessions make of its presence, and who makes room for one more. Pure.

    connected ──silent for longer than F──▶ connected, overdue ──a beat──▶ connected
        │                                       └──silent for longer than D──▶ stale     (final)
        └──disconnect──▶ disconnected                                                    (final)

    online    at least one connected session is not overdue
    stale     there are connected ones, all of them overdue
    offline   none is connected

Silence is what `contracts.freshness.Signs` says it is: the time of outages does not count. Whether an agent is active
or not has no part in any of it.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from contracts.freshness import OVERDUE_S, Signs, is_gone, is_past_deadline
from contracts.records import Agent, LiveSession
from contracts.words import PresenceWord, SessionStatus

MAX_CONNECTED: Final = 20
"""So many connected sessions are kept of each agent."""
_TICK: Final = timedelta(milliseconds=1)


def status_of(session: LiveSession, signs: Signs) -> SessionStatus:
    """Where a session stands. What was noted on its record counts before what its silence says."""
    if session.detached_at is not None:
        return SessionStatus.DISCONNECTED
    if session.stale_at is not None or is_past_deadline(session, signs):
        return SessionStatus.STALE
    return SessionStatus.CONNECTED


def is_connected(session: LiveSession, signs: Signs) -> bool:
    return status_of(session, signs) is SessionStatus.CONNECTED


def overdue_after(session: LiveSession, agent: Agent) -> timedelta:
    """How long a session may be silent before it is overdue: a live one as long as its agent says."""
    usual = agent.heartbeat_age_sec if session.is_live else OVERDUE_S
    return timedelta(seconds=session.overdue_s or usual)


def is_overdue(session: LiveSession, agent: Agent, signs: Signs) -> bool:
    """Say whether a session, connected or not, has been silent for longer than it may."""
    return signs.silence(signs.seen_at(session)) > overdue_after(session, agent)


def presence(agent: Agent, sessions: Iterable[LiveSession], signs: Signs) -> PresenceWord:
    """What an agent's sessions make of it; those that ended do not matter."""
    connected = [session for session in sessions if is_connected(session, signs)]
    if not connected:
        return PresenceWord.OFFLINE
    is_fresh = any(not is_overdue(session, agent, signs) for session in connected)
    return PresenceWord.ONLINE if is_fresh else PresenceWord.STALE


def noted_at(sessions: Iterable[LiveSession], now: datetime) -> datetime:
    """When a session is noted as stale: behind all such notes before it, whatever the clocks of their writers say.

    So the order in which stale sessions are told is the order in which they were noted, and none is left out.
    """
    return max([now, *(each.stale_at + _TICK for each in sessions if each.stale_at)])


def making_room(sessions: Iterable[LiveSession], signs: Signs) -> tuple[LiveSession, ...]:
    """Those of an agent's sessions that end so that one more can be kept, in the order in which they leave.

    First those past their deadline; then those that never beat since they registered, the oldest first, so that a
    worker that crashes and registers over and over pushes out nobody but its own; then whoever is known to be gone;
    then whoever was heard of least recently.
    """
    attached = [session for session in sessions if session.is_attached]
    too_many = len(attached) + 1 - MAX_CONNECTED
    return tuple(sorted(attached, key=lambda session: _place(session, signs))[: max(0, too_many)])


def _place(session: LiveSession, signs: Signs) -> tuple[int, datetime, str]:
    heard_at = signs.heard.get(session.id)
    if is_past_deadline(session, signs):
        return 0, signs.seen_at(session), session.id
    if heard_at is None or heard_at <= session.attached_at:
        return 1, session.attached_at, session.id
    return 2 if is_gone(heard_at) else 3, heard_at, session.id
