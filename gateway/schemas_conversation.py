"""The shapes of messages in both spellings, of receipts, mailboxes, threads and grants; the body that gives a grant."""

from typing import Any, Literal, TypeAlias

from pydantic import ConfigDict

from gateway.schemas import Body
from gateway.schemas_agents import Slug
from gateway.schemas_views import ChannelWord, Instant, ListedMessage, MessageView, View

DeliveryState: TypeAlias = Literal["queued", "delivering", "delivered", "read", "acked", "expired", "failed"]
Stage: TypeAlias = Literal[
    "accepted", "scheduled", "routed", "offered", "fell_back", "claimed", "leased", "handed_out", "in_context", "read",
    "outcome", "ended", "discarded",
]  # fmt: skip


class NewGrant(Body):
    """The owner who may send."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"owner": "zoe"}]})

    owner: Slug


class PeerMessageView(MessageView):
    """A message with the fields CueAPI's clients read."""

    user_id: str
    from_agent_id: str | None
    to_agent_id: str
    body: str
    preview: str
    delivery_state: DeliveryState
    reply_to_agent_id: str | None
    created_at: Instant
    delivered_at: Instant | None
    read_at: Instant | None
    acked_at: Instant | None
    failed_at: Instant | None
    message_dispatch_error: str | None


class ReceiptView(View):
    """One stage a message reached; `detail` has the facts of the stage."""

    stage: Stage
    at: Instant
    channel: ChannelWord | None
    execution: int
    detail: dict[str, Any]


class MessageWithReceipts(PeerMessageView):
    receipts: list[ReceiptView]


class ReceiptsView(View):
    message_id: str
    receipts: list[ReceiptView]


class InboxPage(View):
    """Inbox and sent. `total` is null where it cannot be known without looking at every message."""

    messages: list[ListedMessage]
    next_cursor: str | None
    total: int | None
    limit: int
    offset: int


class InboxCount(View):
    """What `count_only` asks for."""

    count: int


class ThreadPage(View):
    thread_id: str
    messages: list[ListedMessage]
    next_cursor: str | None


class GrantView(View):
    """That `owner` may send to one's externally addressable agents."""

    owner: str
    created_at: Instant


class GrantPage(View):
    grants: list[GrantView]
