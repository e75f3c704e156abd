"""The bodies that subscribe to an agent's events and acknowledge them, and the shapes of what is answered."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from gateway.schemas import MAX_URL, Body
from gateway.schemas_views import Instant, View


class NewSubscription(Body):
    """A subscription. Type, target and URL are checked by hand: their refusals have codes of their own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"event_type": "message.delivered", "delivery_target": "pull", "inline_body": True}]
        }
    )

    event_type: Annotated[
        str, Field(min_length=1, max_length=255, description="One of the types of docs/api.md, or `*`.")
    ]
    delivery_target: Annotated[str, Field(min_length=1, max_length=16, description="`pull` or `webhook`.")]
    webhook_url: Annotated[str, Field(min_length=1, max_length=MAX_URL)] | None = None
    inline_body: bool = Field(default=False, description="Put the texts of messages into `message.delivered`.")


class Acknowledgement(Body):
    """How far the subscriber has read."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"acked_event_id": 4711}]})

    acked_event_id: Annotated[int, Field(ge=0, le=2**63 - 1)]


class SubscriptionView(View):
    id: str
    subscriber_agent_id: str
    event_type: str
    delivery_target: Literal["pull", "webhook"]
    webhook_url: str | None
    inline_body: bool
    last_dispatched_event_id: int | None
    last_dispatched_at: Instant | None
    last_acked_event_id: int | None
    consecutive_failures: int
    paused_until: Instant | None
    created_at: Instant
    detached_at: Instant | None


class SubscriptionWithSecret(SubscriptionView):
    """A new subscription; `webhook_secret` is shown once, null for a pull."""

    webhook_secret: str | None


class SubscriptionPage(View):
    subscriptions: list[SubscriptionView]


class PostingView(View):
    """One attempt to post events. `status` null: nobody answered, and `error` says why."""

    at: Instant
    first_seq: int
    last_seq: int
    status: int | None
    latency_ms: int
    error: str | None
    response: str


class PostingPage(View):
    attempts: list[PostingView]


class DetachedView(View):
    detached: bool


class AcknowledgedView(View):
    acked: bool


class TenantEventView(View):
    """An event with the attributes of CloudEvents 1.0. `seq` is its place in the owner's log."""

    seq: int
    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    time: Instant
    datacontenttype: Literal["application/json"]
    data: dict[str, Any]


class TenantEventPage(View):
    events: list[TenantEventView]
    next_after: int
    has_more: bool


class AgentEventView(View):
    """An event as an agent's subscribers read it. `id` is its place in the log, `event_id` its stable id."""

    id: int
    event_id: str
    event_type: str
    source: str
    subject: str
    recipient_agent_id: str | None
    payload: dict[str, Any]
    emitted_at: Instant


class AgentEventPage(View):
    events: list[AgentEventView]
    next_cursor: int | None
    has_more: bool
