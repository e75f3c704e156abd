"""Agents, sessions and keys as clients read them. Pure; the views of messages are the router's (`router.explain`)."""

from collections.abc import Sequence
from datetime import datetime

from contracts.freshness import Signs
from contracts.records import Agent, ApiKey, JsonObject, LiveSession, Principal, Profile
from contracts.words import SessionStatus
from gateway.auth import principal_of
from gateway.presence import age_s
from router.explain import instant
from router.sessions import is_connected, presence, status_of


def agent_view(agent: Agent, sessions: Sequence[LiveSession], signs: Signs, now: datetime) -> JsonObject:
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
        "presence": presence(agent, sessions, signs).value,
        "stated_presence": agent.stated_presence.value if agent.stated_presence else None,
        "external_addressable": agent.external_addressable,
        "metadata": agent.metadata,
        "profile": _profile(agent.profile),
        "service_account_id": agent.service_account_id,
        "description": agent.description,
        "kind": agent.kind,
        "capabilities": agent.capabilities,
        "config": agent.config,
        "created_at": instant(agent.created_at),
        "updated_at": instant(agent.updated_at),
        "deleted_at": instant(agent.deleted_at),
        "live_sessions": [
            session_view(each, signs, now) for each in sessions if each.is_live and is_connected(each, signs)
        ],
    }


def session_view(session: LiveSession, signs: Signs, now: datetime) -> JsonObject:
    seen_at, status = signs.shown_at(session.id), status_of(session, signs)
    return {
        "id": session.id,
        "label": session.label,
        "task_name": session.task_name,
        "is_default": session.is_default,
        "attached": status is SessionStatus.CONNECTED,
        "status": status.value,
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


def key_view(key: ApiKey, used_at: datetime | None = None) -> JsonObject:
    return {
        **principal_view(principal_of(key)),
        "name": key.name,
        "created_at": instant(key.created_at),
        "expires_at": instant(key.expires_at),
        "last_used_at": instant(used_at),
    }


def principal_view(principal: Principal) -> JsonObject:
    return {
        "owner": principal.owner,
        "key_id": principal.key_id,
        "admin": principal.admin,
        "scopes": None if principal.scopes is None else sorted(scope.value for scope in principal.scopes),
        "agent_id": principal.agent_id,
        "service_account_id": principal.service_account_id,
    }


def _profile(profile: Profile) -> JsonObject:
    return {
        "display_name": profile.display_name,
        "specialization": profile.specialization,
        "tools": list(profile.tools),
        "work_style": profile.work_style.value if profile.work_style else None,
    }
