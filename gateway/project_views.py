"""Agents, service accounts and API keys as Mobius' clients read them. Pure."""

from datetime import datetime

from contracts.records import Agent, ApiKey, JsonObject, ServiceAccount
from contracts.words import PresenceWord
from gateway.keys import PREFIX
from router.explain import instant

SHOWN_OF_KEY = 8
"""So many characters tell one key from another and nothing of its secret."""


def project_agent_view(agent: Agent, presence: PresenceWord) -> JsonObject:
    """Their fields, and two of ours. Where their clients need a text there is one, if need be an empty one."""
    return {
        "id": agent.id,
        "service_account_id": agent.service_account_id or "",
        "name": agent.slug,
        "display_name": agent.profile.display_name or agent.slug,
        "description": agent.description,
        "kind": agent.kind,
        "capabilities": agent.capabilities,
        "config": agent.config,
        "status": agent.status.value,
        "presence": presence.value,
        "address": agent.address,
        "delivery_capabilities": [channel.value for channel in agent.delivery_capabilities],
        "created_at": instant(agent.created_at),
        "updated_at": instant(agent.updated_at),
    }


def account_view(account: ServiceAccount) -> JsonObject:
    return {
        "id": account.id,
        "name": account.name,
        "display_name": account.display_name or account.name,
        "description": account.description,
        "status": account.status.value,
        "owner_user_id": account.owner_user_id,
        "metadata": account.metadata,
        "created_at": instant(account.created_at),
        "updated_at": instant(account.updated_at),
    }


def api_key_view(key: ApiKey, used_at: datetime | None) -> JsonObject:
    """Admin keys, which speak for every project, are `system` keys to them. `permissions` null: all its project may."""
    return {
        "id": key.key_id,
        "name": key.name,
        "key_prefix": f"{PREFIX}{key.key_id}"[:SHOWN_OF_KEY],
        "scope": "system" if key.admin else "org",
        "permissions": None if key.scopes is None else [scope.value for scope in key.scopes],
        "project_id": None if key.admin else key.owner,
        "service_account_id": key.service_account_id,
        "agent_id": key.agent_id,
        "expires_at": instant(key.expires_at),
        "last_used_at": instant(used_at),
        "created_at": instant(key.created_at),
        "updated_at": instant(key.created_at),
    }
