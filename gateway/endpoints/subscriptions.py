"""Subscriptions to an agent's events: subscribe, list, give up, acknowledge."""

from fastapi import APIRouter

from contracts.records import Agent, Principal
from contracts.subscriptions import DeliveryTarget
from contracts.tenant_events import EventType
from gateway.auth import require_scope
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_subscriptions import (
    AcknowledgedView,
    Acknowledgement,
    DetachedView,
    NewSubscription,
    PostingPage,
    SubscriptionPage,
    SubscriptionWithSecret,
)

endpoints = APIRouter(route_class=StrictRoute, tags=["subscriptions"])

_SUBSCRIPTIONS = "/v1/agents/{ref}/subscriptions"


@endpoints.post(_SUBSCRIPTIONS, status_code=201, responses={201: {"model": SubscriptionWithSecret}})
async def subscribe(ref: str, wanted: NewSubscription, caller: Caller, house: House) -> Answer:
    """Subscribe to an agent's events from now on. A webhook's secret is shown this once."""
    agent = await house.directory.find(ref, caller, action="subscription.create", field="ref")
    _refuse_telling(agent, wanted, caller)
    subscription = await house.subscriptions.create(agent, wanted)
    await house.notices.subscription(EventType.SUBSCRIPTION_CREATED, subscription)
    return Answer(await house.subscriptions.view(subscription, with_secret=True), 201)


@endpoints.get(_SUBSCRIPTIONS, responses={200: {"model": SubscriptionPage}})
async def list_subscriptions(ref: str, caller: Caller, house: House) -> Answer:
    """The active subscriptions to an agent's events, oldest first, and how far each has got."""
    agent = await house.directory.find(ref, caller, action="subscription.read", field="ref")
    found = await house.subscriptions.of_agent(agent)
    return Answer({"subscriptions": [await house.subscriptions.view(each) for each in found]})


@endpoints.delete(_SUBSCRIPTIONS + "/{subscription_id}", responses={200: {"model": DetachedView}})
async def unsubscribe(ref: str, subscription_id: str, caller: Caller, house: House) -> Answer:
    """Give a subscription up; one that is not there is given up already."""
    agent = await house.directory.find(ref, caller, action="subscription.delete", field="ref")
    gone = await house.subscriptions.delete(agent, subscription_id)
    if gone is not None:
        await house.notices.subscription(EventType.SUBSCRIPTION_DELETED, gone)
    return Answer({"detached": True})


@endpoints.get(_SUBSCRIPTIONS + "/{subscription_id}/attempts", responses={200: {"model": PostingPage}})
async def list_attempts(ref: str, subscription_id: str, caller: Caller, house: House) -> Answer:
    """The last attempts to post events to this subscriber, oldest first."""
    agent = await house.directory.find(ref, caller, action="subscription.read", field="ref")
    return Answer({"attempts": await house.subscriptions.postings(agent, subscription_id)})


@endpoints.patch(_SUBSCRIPTIONS + "/{subscription_id}/ack", responses={200: {"model": AcknowledgedView}})
async def acknowledge(ref: str, subscription_id: str, wanted: Acknowledgement, caller: Caller, house: House) -> Answer:
    """Note how far one has read."""
    agent = await house.directory.find(ref, caller, action="subscription.ack", field="ref")
    await house.subscriptions.acknowledge(agent, subscription_id, wanted.acked_event_id)
    return Answer({"acked": True})


def _refuse_telling(agent: Agent, wanted: NewSubscription, caller: Principal) -> None:
    """What is posted to a subscriber is what its maker may read; whoever pulls is asked each time."""
    if wanted.delivery_target != DeliveryTarget.WEBHOOK:
        return
    require_scope(caller, "events.read", agent.owner, agent)
    if wanted.inline_body:
        require_scope(caller, "message.read", agent.owner, agent)
