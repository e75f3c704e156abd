"""Agents, sessions and keys as clients read them. Pure; the views of messages are the router's (`router.explain`)."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from contracts.records import Agent, ApiKey, JsonObject, LiveSession, Principal, Profile
from gateway.presence import age_s
from router.explain import instant

LastSeen = Mapping[str, datetime | None]


def agent_view(agent: Agent, sessions: Sequence[LiveSession], seen: LastSeen, now: datetime) -> JsonObject:
    return {
        "id": agent.id,
        "slug": agent.slug,
        "owner": agent.owner,
        "user_id": agent.owner,
        "address": agent.address,
        "display_name": agent.profile.display_name,
        "delivery_capabilities": [channel.value for channel in agent.delivery_capabilities],
        "preferred_contact": agent.preferred_contact.value if agent.preferred_contact else None,
        "heartbeat_age_sec": agent.heartbeat_age_sec,
        "claim_window_s": agent.claim_window_s,
        "attestation": agent.attestation.value,
        "webhook_url": agent.webhook_url,
        "status": agent.status.value,
        "stated_presence": agent.stated_presence.value if agent.stated_presence else None,
        "external_addressable": agent.external_addressable,
        "metadata": agent.metadata,
        "profile": _profile(agent.profile),
        "created_at": instant(agent.created_at),
        "updated_at": instant(agent.updated_at),
        "deleted_at": instant(agent.deleted_at),
        "live_sessions": [session_view(each, seen.get(each.id), now) for each in sessions if each.is_attached],
    }


def session_view(session: LiveSession, seen_at: datetime | None, now: datetime) -> JsonObject:
    return {
        "id": session.id,
        "label": session.label,
        "task_name": session.task_name,
        "is_default": session.is_default,
        "attached": session.is_attached,
        "attached_at": instant(session.attached_at),
        "detached_at": instant(session.detached_at),
        "attestation": session.attestation.value,
        "monitor_version": session.monitor_version,
        "last_seen_at": instant(seen_at),
        "heartbeat_age_sec": age_s(seen_at, now),
        "token_fingerprint": session.token_fingerprint,
        "echoes": session.echoes,
        "cue_id": session.cue_id,
    }


def key_view(key: ApiKey) -> JsonObject:
    return {
        "key_id": key.key_id,
        "owner": key.owner,
        "name": key.name,
        "admin": key.admin,
        "created_at": instant(key.created_at),
    }


def principal_view(principal: Principal) -> JsonObject:
    return {"owner": principal.owner, "key_id": principal.key_id, "admin": principal.admin}


def _profile(profile: Profile) -> JsonObject:
    return {
        "display_name": profile.display_name,
        "specialization": profile.specialization,
        "tools": list(profile.tools),
        "work_style": profile.work_style.value if profile.work_style else None,
    }
