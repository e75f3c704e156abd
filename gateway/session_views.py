"""Sessions as Mobius' clients read them, and pages of them. Pure."""

from collections.abc import Sequence

from contracts.freshness import Signs, terminal_after
from contracts.records import Agent, JsonObject, LiveSession
from contracts.words import SessionStatus
from gateway.beat_advice import interval_s
from router.explain import instant
from router.sessions import is_overdue, overdue_after, status_of


def worker_session_view(session: LiveSession, agent: Agent, signs: Signs, next_beat_s: float) -> JsonObject:
    """Their fields, and when to beat. `updated_at` does not move with beats."""
    status = status_of(session, signs)
    is_connected = status is SessionStatus.CONNECTED
    heard_at = signs.shown_at(session.id) or (session.attached_at if is_connected else None)
    overdue = overdue_after(session, agent)
    return {
        "id": session.id,
        "agent_id": agent.id,
        "status": status.value,
        "transport": session.transport,
        "metadata": session.metadata,
        "connected_at": instant(session.attached_at),
        "last_seen_at": instant(heard_at),
        "disconnected_at": instant(session.detached_at),
        "created_at": instant(session.attached_at),
        "updated_at": instant(session.detached_at or session.stale_at or session.attached_at),
        "overdue": is_connected and is_overdue(session, agent, signs),
        "heartbeat_interval_seconds": interval_s(overdue),
        "overdue_after_seconds": int(overdue.total_seconds()),
        "stale_after_seconds": int(terminal_after(session).total_seconds()),
        "next_beat_after_seconds": next_beat_s if is_connected else None,
    }


def place_of(session: LiveSession) -> str:
    """Where a session stands in a list: by when it registered, and never by when it was heard of."""
    return f"{session.attached_at.isoformat(timespec='microseconds')} {session.id}"


def newest_first(sessions: Sequence[LiveSession], before: str, limit: int) -> tuple[list[LiveSession], str | None]:
    """One page of sessions behind a place, the empty one being the beginning, and the place to go on behind."""
    ordered = sorted(sessions, key=place_of, reverse=True)
    rest = [session for session in ordered if not before or place_of(session) < before]
    return rest[:limit], place_of(rest[limit - 1]) if len(rest) > limit else None
