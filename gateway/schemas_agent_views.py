"""The shapes of answers about agents: what is stored of one, and pages of them."""

from typing import Any, Literal

from gateway.schemas_views import ChannelWord, Instant, Level, ProfileView, SessionsPresence, SessionView, View


class AgentView(View):
    id: str
    slug: str
    owner: str
    user_id: str
    address: str
    display_name: str | None
    delivery_capabilities: list[ChannelWord]
    preferred_contact: ChannelWord | None
    heartbeat_age_sec: int
    claim_window_s: int
    attestation: Level
    webhook_url: str | None
    status: Literal["active", "inactive"]
    presence: SessionsPresence
    stated_presence: Literal["online", "away", "offline"] | None
    external_addressable: bool
    metadata: dict[str, Any]
    profile: ProfileView
    service_account_id: str | None
    description: str | None
    kind: str | None
    capabilities: dict[str, Any]
    config: dict[str, Any]
    created_at: Instant
    updated_at: Instant
    deleted_at: Instant | None
    live_sessions: list[SessionView]


class AgentWithSecret(AgentView):
    """An agent; `webhook_secret` is there once, when a webhook URL is first set."""

    webhook_secret: str = ""


class AgentPage(View):
    """`total` is null for a search: what fits is known of the agents looked at only."""

    agents: list[AgentView]
    next_cursor: str | None
    total: int | None
    limit: int
    offset: int
