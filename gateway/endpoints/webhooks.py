"""An agent's webhook: settings, secret, tests; and the attempts at an execution."""

from fastapi import APIRouter
from pydantic_core import to_json

from contracts import ids
from contracts.errors import Conflict
from contracts.records import Principal
from contracts.tenant_events import EventType
from contracts.words import Channel
from gateway.parts import Rooms
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_webhooks import (
    AttemptPage,
    DeliveryView,
    PingView,
    RotatedView,
    Rotation,
    WebhookChange,
    WebhookView,
)
from router.attempts import attempt_views
from router.desk import Standing, no_execution
from router.webhook_payload import payload

endpoints = APIRouter(route_class=StrictRoute, tags=["webhooks"])

_WEBHOOK = "/v1/agents/{ref}/webhook"
NO_ROTATION = Rotation()


@endpoints.get(_WEBHOOK, responses={200: {"model": WebhookView}})
async def read_webhook(ref: str, caller: Caller, house: House) -> Answer:
    """Where an agent's webhooks go, how they are signed, and how its receiver does."""
    agent = await house.directory.find(ref, caller, action="webhook.read", field="ref")
    return Answer(house.webhooks.view(agent))


@endpoints.patch(_WEBHOOK, responses={200: {"model": WebhookView}})
async def change_webhook(ref: str, change: WebhookChange, caller: Caller, house: House) -> Answer:
    """Change how fast the receiver may be posted to."""
    agent = await house.webhooks.change(ref, change, caller)
    await house.notices.agent(EventType.AGENT_UPDATED, agent)
    return Answer(house.webhooks.view(agent))


@endpoints.post(_WEBHOOK + "/rotate", responses={200: {"model": RotatedView}})
async def rotate(ref: str, caller: Caller, house: House, wanted: Rotation = NO_ROTATION) -> Answer:
    """Another secret, shown this once; the one before it signs beside it for a stated time."""
    agent = await house.webhooks.rotate(ref, wanted, caller)
    await house.notices.agent(EventType.AGENT_UPDATED, agent)
    view = house.webhooks.view(agent)
    return Answer({**view, "webhook_secret": agent.webhook_secret if view["signature"] == "v1" else None})


@endpoints.post(_WEBHOOK + "/enable", responses={200: {"model": WebhookView}})
async def enable(ref: str, caller: Caller, house: House) -> Answer:
    """Post to a receiver again that was disabled; what waits for it is delivered."""
    agent = await house.webhooks.enable(ref, caller)
    await house.notices.agent(EventType.WEBHOOK_ENABLED, agent)
    return Answer(house.webhooks.view(agent))


@endpoints.post(_WEBHOOK + "/test", responses={200: {"model": PingView}})
async def test(ref: str, caller: Caller, house: House) -> Answer:
    """Post a signed test to the receiver, and tell what it said."""
    agent = await house.directory.find(ref, caller, action="webhook.update", field="ref")
    named, result = await house.webhooks.ping(agent)
    return Answer(
        {
            "delivered": result.status is not None and 200 <= result.status < 300,
            "webhook_id": named,
            "status": result.status,
            "latency_ms": result.latency_ms,
            "error": result.error,
            "response": result.excerpt,
        }
    )


@endpoints.get("/v1/executions/{execution_id}/attempts", responses={200: {"model": AttemptPage}})
async def attempts(execution_id: str, caller: Caller, house: House) -> Answer:
    """Every attempt at an execution. What a receiver said is shown to its owner alone."""
    standing = await house.parts.service.find_execution(execution_id, caller)
    number, is_receivers = standing.execution.number, await _is_receivers(standing, caller, house)
    return Answer(
        {
            "execution_id": ids.execution_id(standing.history.ulid, number),
            "message_id": standing.history.message.id,
            "state": standing.execution.state.value,
            "attempts": attempt_views(standing.history, number, with_responses=is_receivers),
        }
    )


@endpoints.get("/v1/executions/{execution_id}/webhook", responses={200: {"model": DeliveryView}})
async def delivery(execution_id: str, caller: Caller, house: House) -> Answer:
    """A webhook as it is posted, signed now: for whoever listens along, and to replay one."""
    standing = await house.parts.service.find_execution(execution_id, caller)
    message = standing.history.message
    if not await _is_receivers(standing, caller, house):
        raise no_execution()
    if standing.execution.channel is not Channel.WEBHOOK:
        raise Conflict("not_a_webhook", "This execution does not go to a webhook.")
    agent = await house.directory.find(message.agent_id, caller, action="execution.read", field="ref")
    body = to_json(payload(standing))
    return Answer(
        {
            "execution_id": ids.execution_id(standing.history.ulid, standing.execution.number),
            "message_id": message.id,
            "body": body.decode(),
            "headers": house.webhooks.signed(agent, message.id, body),
        }
    )


async def _is_receivers(standing: Standing, caller: Principal, house: Rooms) -> bool:
    message = standing.history.message
    return await house.directory.may(caller, "execution.read", message.agent_owner, message.agent_id)
