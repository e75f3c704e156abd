"""What a webhook's receiver gets, made from the message alone. Pure."""

from typing import Any

from contracts import ids
from contracts.records import Message
from router.desk import Standing
from router.explain import instant


def payload(standing: Standing) -> dict[str, Any]:
    """The body as JSON values. `id` is the webhook id too: the receiver's idempotency key, stable over retries."""
    message = standing.history.message
    return {
        "type": "message.created",
        "timestamp": instant(message.accepted_at),
        "data": {
            "id": message.id,
            "execution_id": ids.execution_id(standing.history.ulid, standing.execution.number),
            "attempt": standing.execution.leases,
            **_addresses(message),
            "subject": message.subject,
            "message": message.body,
            "metadata": message.metadata,
        },
    }


def _addresses(message: Message) -> dict[str, Any]:
    return {
        "from": {"owner": message.sender.owner, "agent_id": message.sender.agent_id},
        "to": {"agent_id": message.agent_id, "slug": message.agent_slug, "owner": message.agent_owner},
    }
