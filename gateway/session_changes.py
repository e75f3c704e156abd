"""What a change makes of an agent's sessions: one enters, changes, or ends. Pure.

Labels, tokens and the default belong to the live ones, those that pushes go to; a session of another transport is known
by its id alone. An ended session stays on record for a while, for whoever asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeAlias

from contracts.errors import Conflict, NotFound
from contracts.freshness import NOTHING_KNOWN, Signs, is_past_deadline
from contracts.records import LiveSession
from router.sessions import MAX_CONNECTED, making_room, noted_at

MAX_ENDED_KEPT: Final = 20

Sessions: TypeAlias = tuple[LiveSession, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """The sessions with a new one among them, and those that ended for it."""

    sessions: Sessions
    session: LiveSession
    ended: Sessions = ()


def needs_signs(sessions: Sessions, new: LiveSession) -> bool:
    """Whether somebody may have to go for the new one, so that it matters who was heard of when."""
    attached = [session for session in sessions if session.is_attached]
    return len(attached) >= MAX_CONNECTED or any(_is_namesake(session, new) for session in attached)


def enter(sessions: Sessions, new: LiveSession, signs: Signs = NOTHING_KNOWN) -> Entered:
    """The new session takes its place; the first live one is the default. Raises `Conflict` (`live_session_conflict`).

    A label is free again when its session is past its deadline, whoever noted that or not.
    """
    attached = [session for session in sessions if session.is_attached]
    namesakes = [session for session in attached if _is_namesake(session, new)]
    if any(not is_past_deadline(session, signs) for session in namesakes):
        raise Conflict("live_session_conflict", "A session with this label is attached.", field="label")
    leaving = {session.id: session for session in (*namesakes, *making_room(attached, signs))}
    for session in leaving.values():
        sessions = end(sessions, session.id, new.attached_at, is_stale=is_past_deadline(session, signs))
    if new.is_default:
        sessions = _without_default(sessions)
    elif new.is_live and not any(session.is_default for session in sessions):
        new = replace(new, is_default=True)
    ended = tuple(session for session in sessions if session.id in leaving)
    return Entered(sessions=pruned((*sessions, new)), session=new, ended=ended)


def alter(
    sessions: Sessions,
    label: str,
    *,
    token_sha256: str | None = None,
    monitor_version: str | None = None,
    make_default: bool = False,
) -> tuple[Sessions, LiveSession]:
    """`sessions` with the attached one of this label changed; making it the default takes that from the other."""
    session = find_attached(sessions, label)
    changed = replace(
        session,
        token_sha256=token_sha256 or session.token_sha256,
        monitor_version=monitor_version or session.monitor_version,
        is_default=make_default or session.is_default,
    )
    others = _without_default(sessions) if make_default else sessions
    return tuple(changed if each.id == session.id else each for each in others), changed


def detach(sessions: Sessions, label: str, now: datetime) -> tuple[Sessions, LiveSession]:
    """`sessions` with the attached one of this label detached."""
    session = find_attached(sessions, label)
    rest = end(sessions, session.id, now)
    return pruned(rest), next(each for each in rest if each.id == session.id)


def disconnect(sessions: Sessions, session_id: str, now: datetime, signs: Signs) -> tuple[Sessions, LiveSession]:
    """`sessions` with this one disconnected; one that has ended stays as it ended. Raises `NotFound`."""
    session = find(sessions, session_id)
    if not session.is_attached or is_past_deadline(session, signs):
        return sessions, session
    rest = end(sessions, session_id, now)
    return pruned(rest), find(rest, session_id)


def end(sessions: Sessions, session_id: str, now: datetime, *, is_stale: bool = False) -> Sessions:
    """`sessions` with this one ended for good; the oldest live one that remains inherits being the default."""
    was_default = any(each.id == session_id and each.is_default for each in sessions)
    at = noted_at(sessions, now) if is_stale else now
    rest = tuple(_ended(each, at, is_stale) if each.id == session_id else each for each in sessions)
    heir = next((each for each in rest if each.is_attached and each.is_live), None) if was_default else None
    if heir is not None:
        rest = tuple(replace(each, is_default=True) if each.id == heir.id else each for each in rest)
    return rest


def find(sessions: Sequence[LiveSession], session_id: str) -> LiveSession:
    """The session of this id, ended or not; raises `NotFound`."""
    for session in sessions:
        if session.id == session_id:
            return session
    raise session_not_found()


def find_attached(sessions: Sequence[LiveSession], label: str) -> LiveSession:
    """The attached live session of this label; raises `NotFound`."""
    for session in sessions:
        if session.is_attached and session.is_live and session.label == label:
            return session
    raise not_attached()


def session_not_found() -> NotFound:
    """The one answer for a session that is absent, forgotten or somebody else's."""
    return NotFound("session_not_found", "There is no such session.")


def not_attached() -> NotFound:
    return NotFound("live_session_not_found", "No session with this label is attached.")


def pruned(sessions: Sessions) -> Sessions:
    """All attached sessions and those that ended last, in their order."""
    ended = sorted((session for session in sessions if not session.is_attached), key=_ended_at)
    dropped = {session.id for session in ended[:-MAX_ENDED_KEPT]}
    return tuple(session for session in sessions if session.id not in dropped)


def _ended_at(session: LiveSession) -> datetime:
    return session.detached_at or session.stale_at or session.attached_at


def _ended(session: LiveSession, now: datetime, is_stale: bool) -> LiveSession:
    if is_stale:
        return replace(session, stale_at=now, is_default=False)
    return replace(session, detached_at=now, is_default=False)


def _is_namesake(session: LiveSession, new: LiveSession) -> bool:
    return session.is_live and new.is_live and session.label == new.label


def _without_default(sessions: Sessions) -> Sessions:
    return tuple(replace(session, is_default=False) if session.is_default else session for session in sessions)
