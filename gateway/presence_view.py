"""One agent's presence as clients read it: its sessions, its host, and the way pushes take to it. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from contracts.freshness import asked_name, echo_name, host_name
from contracts.records import Agent, JsonObject, LiveSession, Reachability, SessionFact
from contracts.words import Channel, Reason
from gateway.etags import weak_etag
from gateway.presence import age_s, is_fresh, presence_of
from router.explain import instant
from router.gates import ECHO_BOUND_S, Question, push_path

Seen = Mapping[str, datetime | None]


def presence_names(agent: Agent, sessions: Sequence[LiveSession]) -> list[str]:
    """What has to be known of an agent for `presence_view`."""
    return [*(session.id for session in sessions), host_name(agent.id), asked_name(agent.id), echo_name(agent.id)]


def presence_view(
    agent: Agent, sessions: Sequence[LiveSession], seen: Seen, now: datetime, *, echo_bound_s: int = ECHO_BOUND_S
) -> JsonObject:
    """The whole view. Its ETag covers what changes now and then, not the ages, which always do."""
    host_seen_at = seen[host_name(agent.id)]
    presence = presence_of(agent, [host_seen_at, *(seen[session.id] for session in sessions)], now)
    labeled = [_session(agent, session, seen[session.id], now) for session in sessions]
    way = _push_path(agent, sessions, seen, now, echo_bound_s)
    lasting = [(each["label"], each["is_default"], each["fresh"]) for each in labeled]
    return {
        "agent_id": agent.id,
        "slug": agent.slug,
        "address": agent.address,
        "online": presence.is_online,
        "derived_status": presence.status,
        "bucketed_seen": presence.seen,
        "last_seen_relative": presence.seen,
        "last_seen_at": instant(presence.last_seen_at),
        "default_live": next((each for each in labeled if each["is_default"]), None),
        "labeled_sessions": labeled,
        "host": {"last_seen_at": instant(host_seen_at), "heartbeat_age_sec": age_s(host_seen_at, now)},
        "push_path": way,
        "etag": weak_etag([agent.slug, presence.status, presence.seen, lasting, way["reachable"]]),
    }


def _session(agent: Agent, session: LiveSession, seen_at: datetime | None, now: datetime) -> JsonObject:
    return {
        "label": session.label,
        "session_id": session.id,
        "cue_id": session.cue_id,
        "task_name": session.task_name,
        "is_default": session.is_default,
        "fresh": is_fresh(seen_at, now, max_age_s=agent.heartbeat_age_sec),
        "last_seen_at": instant(seen_at),
        "heartbeat_age_sec": age_s(seen_at, now),
    }


def _push_path(
    agent: Agent, sessions: Sequence[LiveSession], seen: Seen, now: datetime, echo_bound_s: int
) -> JsonObject:
    """What the router's own gate says of it now."""
    asked_at, answered_at = seen[asked_name(agent.id)], seen[echo_name(agent.id)]
    facts = tuple(_fact(session, seen[session.id]) for session in sessions)
    reach = Reachability(sessions=facts, echo_asked_at=asked_at, echo_answered_at=answered_at)
    question = Question(recipient=agent, reach=reach, now=now, echo_bound_s=echo_bound_s)
    answer = push_path(question, Channel.LIVE)
    is_judged = "bound_s" in answer.facts and answered_at is not None
    says_no = answer.reason is not Reason.OK
    return {
        "reachable": not says_no if is_judged or says_no else None,
        "reason": answer.reason.value,
        "asked_at": instant(asked_at),
        "answered_at": instant(answered_at),
    }


def _fact(session: LiveSession, seen_at: datetime | None) -> SessionFact:
    return SessionFact(
        id=session.id,
        label=session.label,
        is_default=session.is_default,
        last_seen_at=seen_at,
        echoes=session.echoes,
    )
