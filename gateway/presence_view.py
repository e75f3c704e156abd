"""One agent's presence as clients read it: its sessions, its host, and the way pushes take to it. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from contracts.freshness import Signs, asked_name, echo_name, host_name
from contracts.records import Agent, JsonObject, LiveSession, Reachability
from contracts.words import Channel, Reason
from gateway.etags import weak_etag
from gateway.presence import age_s, presence_of, signs_of_life
from router.explain import instant
from router.gates import ECHO_BOUND_S, Question, push_path
from router.sessions import is_connected, is_overdue
from router.sessions import presence as sessions_presence


def presence_names(agent: Agent, sessions: Sequence[LiveSession]) -> list[str]:
    """What has to be known of an agent for `presence_view`."""
    return [*(session.id for session in sessions), host_name(agent.id), asked_name(agent.id), echo_name(agent.id)]


def presence_view(
    agent: Agent, sessions: Sequence[LiveSession], signs: Signs, now: datetime, *, echo_bound_s: int = ECHO_BOUND_S
) -> JsonObject:
    """The whole view. Its ETag covers what changes now and then, not the ages, which always do."""
    host_seen_at = signs.heard[host_name(agent.id)]
    presence = presence_of(agent, signs_of_life(agent, sessions, signs, now), now)
    word = sessions_presence(agent, sessions, signs)
    live = [session for session in sessions if session.is_live and is_connected(session, signs)]
    labeled = [_session(agent, session, signs, now) for session in live]
    way = _push_path(agent, live, signs, now, echo_bound_s)
    lasting = [(each["label"], each["is_default"], each["fresh"]) for each in labeled]
    return {
        "agent_id": agent.id,
        "slug": agent.slug,
        "address": agent.address,
        "online": presence.is_online,
        "derived_status": presence.status,
        "presence": word.value,
        "bucketed_seen": presence.seen,
        "last_seen_relative": presence.seen,
        "last_seen_at": instant(_newest([host_seen_at, *(signs.shown_at(session.id) for session in sessions)])),
        "default_live": next((each for each in labeled if each["is_default"]), None),
        "labeled_sessions": labeled,
        "host": {"last_seen_at": instant(host_seen_at), "heartbeat_age_sec": age_s(host_seen_at, now)},
        "push_path": way,
        "etag": weak_etag([agent.slug, presence.status, presence.seen, word.value, lasting, way["reachable"]]),
    }


def _newest(instants: Iterable[datetime | None]) -> datetime | None:
    return max((each for each in instants if each is not None), default=None)


def _session(agent: Agent, session: LiveSession, signs: Signs, now: datetime) -> JsonObject:
    seen_at = signs.shown_at(session.id)
    return {
        "label": session.label,
        "session_id": session.id,
        "cue_id": session.cue_id,
        "task_name": session.task_name,
        "is_default": session.is_default,
        "fresh": not is_overdue(session, agent, signs),
        "last_seen_at": instant(seen_at),
        "heartbeat_age_sec": age_s(seen_at, now),
    }


def _push_path(
    agent: Agent, sessions: Sequence[LiveSession], signs: Signs, now: datetime, echo_bound_s: int
) -> JsonObject:
    """What the router's own gate says of it now."""
    asked_at, answered_at = signs.heard[asked_name(agent.id)], signs.heard[echo_name(agent.id)]
    facts = tuple(signs.fact_of(session, now) for session in sessions)
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
