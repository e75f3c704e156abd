"""Subscriptions come and go, and how far each has got. One record per agent holds them all: no two are the same."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from contracts.clock import Clock, Ids
from contracts.errors import Conflict, Invalid, Malformed, NotFound
from contracts.records import Agent, JsonObject
from contracts.subscriptions import (
    DeliveryTarget,
    Subscription,
    SubscriptionMark,
    Subscriptions,
    mark_key,
    subscriptions_key,
)
from contracts.tenant_events import ANY_TYPE, EventType
from gateway.directory import decided
from gateway.ports import DirectoryStore, EventLog, Write
from gateway.schemas_subscriptions import NewSubscription
from router.explain import instant, plain

MAX_PER_AGENT: Final = 50
FOREIGN_TYPES: Final = frozenset({"turn.pass"})
"""Types that clients of a peer subscribe to. Nothing of ours makes such events."""


class SubscriptionBook:
    """Changes of the subscriptions to agents the caller was already allowed to touch."""

    def __init__(
        self, *, store: DirectoryStore, log: EventLog, clock: Clock, ids: Ids, check_url: Callable[[str], None]
    ) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self._ids = ids
        self._check_url = check_url

    async def create(self, agent: Agent, wanted: NewSubscription) -> Subscription:
        """Subscribe. Raises `Malformed` for a type, a target or a URL there cannot be, `Conflict` for a second one."""
        target = self._checked(wanted)
        # Before the record is there: what happens in between is told rather than missed.
        new = self._new(agent, wanted, target, await self._log.last_seq())
        await decided(lambda: self._change(agent.id, lambda items: _with(items, new)))
        return new

    async def of_agent(self, agent: Agent) -> tuple[Subscription, ...]:
        found = await self._store.get(subscriptions_key(agent.id), Subscriptions)
        return found.record.items if found else ()

    async def delete(self, agent: Agent, subscription_id: str) -> Subscription | None:
        """Give a subscription up; None when there is none of this id."""
        known = {each.id: each for each in (await self._current(agent.id))[0]}
        gone = known.get(subscription_id)
        if gone is not None:
            await decided(lambda: self._change(agent.id, lambda items: _without(items, gone.id)))
        return gone

    async def acknowledge(self, agent: Agent, subscription_id: str, seq: int) -> None:
        """Note how far the subscriber has read; only ever forward, and never beyond the log's end.

        A subscription that was given up is acknowledged by nobody, and its reader is not told so: CueAPI's clients
        take their word to have been noted.
        """
        if not any(each.id == subscription_id for each in (await self._current(agent.id))[0]):
            return
        seq = min(seq, await self._log.last_seq())
        await decided(lambda: self._acknowledge(subscription_id, seq))

    async def acknowledge_read(self, agent: Agent, seq: int, event_type: str | None) -> None:
        """Whoever asks for what follows `seq` has read so far: an acknowledgement of the pull subscriptions."""
        for each in await self.of_agent(agent):
            if each.target is DeliveryTarget.PULL and event_type in (None, each.event_type):
                await decided(lambda known=each: self._acknowledge(known.id, seq))  # type: ignore[misc]

    async def wants_body(self, agent: Agent, event_type: str) -> bool:
        """Say whether somebody who pulls asked for the texts of messages."""
        return any(
            each.inline_body and each.target is DeliveryTarget.PULL and each.wants(event_type)
            for each in await self.of_agent(agent)
        )

    async def view(self, subscription: Subscription, *, with_secret: bool = False) -> JsonObject:
        mark = (await self._mark(subscription.id))[0]
        view: JsonObject = {
            "id": subscription.id,
            "subscriber_agent_id": subscription.agent_id,
            "event_type": subscription.event_type,
            "delivery_target": subscription.target.value,
            "webhook_url": _origin(subscription.webhook_url),
            "inline_body": subscription.inline_body,
            "last_dispatched_event_id": mark.dispatched_seq,
            "last_dispatched_at": instant(mark.dispatched_at),
            "last_acked_event_id": mark.acked_seq,
            "consecutive_failures": mark.failures,
            "paused_until": instant(mark.paused_until),
            "created_at": instant(subscription.created_at),
            "detached_at": None,
        }
        return {**view, "webhook_secret": subscription.webhook_secret} if with_secret else view

    async def postings(self, agent: Agent, subscription_id: str) -> list[JsonObject]:
        """The last attempts to post to a subscriber, oldest first. Raises `NotFound`."""
        if not any(each.id == subscription_id for each in await self.of_agent(agent)):
            raise NotFound("subscription_not_found", "There is no such subscription.")
        return [plain(each) for each in (await self._mark(subscription_id))[0].postings]

    # --- the steps of a change -------------------------------------------------------------------------------------

    async def _change(
        self, agent_id: str, change: Callable[[Sequence[Subscription]], tuple[Subscription, ...]]
    ) -> None:
        items, seq = await self._current(agent_id)
        record = Subscriptions(items=change(items))
        await self._store.transact([Write(key=subscriptions_key(agent_id), record=record, expected_seq=seq)])

    async def _current(self, agent_id: str) -> tuple[tuple[Subscription, ...], int]:
        found = await self._store.get(subscriptions_key(agent_id), Subscriptions, fresh=True)
        return (found.record.items, found.seq) if found else ((), 0)

    async def _acknowledge(self, subscription_id: str, seq: int) -> None:
        mark, expected_seq = await self._mark(subscription_id)
        if seq <= (mark.acked_seq or 0):
            return
        write = Write(key=mark_key(subscription_id), record=replace(mark, acked_seq=seq), expected_seq=expected_seq)
        await self._store.transact([write])

    async def _mark(self, subscription_id: str) -> tuple[SubscriptionMark, int]:
        found = await self._store.get(mark_key(subscription_id), SubscriptionMark, fresh=True)
        return (found.record, found.seq) if found else (SubscriptionMark(), 0)

    # --- the pure part ---------------------------------------------------------------------------------------------

    def _checked(self, wanted: NewSubscription) -> DeliveryTarget:
        if wanted.event_type not in known_types() | FOREIGN_TYPES | {ANY_TYPE}:
            raise unknown_event_type()
        if wanted.delivery_target not in tuple(DeliveryTarget):
            raise _bad_target("delivery_target is pull or webhook.")
        target = DeliveryTarget(wanted.delivery_target)
        if target is DeliveryTarget.WEBHOOK:
            self._check_webhook(wanted.webhook_url)
        elif wanted.webhook_url is not None:
            raise _bad_target("A webhook_url belongs to the delivery_target webhook.")
        return target

    def _check_webhook(self, url: str | None) -> None:
        if url is None:
            raise _bad_target("The delivery_target webhook needs a webhook_url.")
        try:
            self._check_url(url)
        except Invalid as error:
            raise _bad_url(error.message) from None

    def _new(self, agent: Agent, wanted: NewSubscription, target: DeliveryTarget, start_seq: int) -> Subscription:
        is_pushed = target is DeliveryTarget.WEBHOOK
        return Subscription(
            id=f"sub_{self._ids.ulid()}",
            agent_id=agent.id,
            owner=agent.owner,
            event_type=wanted.event_type,
            target=target,
            created_at=self._clock.now(),
            start_seq=start_seq,
            webhook_url=wanted.webhook_url,
            webhook_secret=f"whsec_{base64.b64encode(self._ids.secret(32)).decode()}" if is_pushed else None,
            inline_body=wanted.inline_body,
        )


def known_types() -> frozenset[str]:
    return frozenset(each.value for each in EventType)


def unknown_event_type(field: str = "event_type") -> Malformed:
    return Malformed("unknown_event_type", "There are no events of this type.", field=field)


def _with(items: Sequence[Subscription], new: Subscription) -> tuple[Subscription, ...]:
    if any((each.event_type, each.target) == (new.event_type, new.target) for each in items):
        raise Conflict("subscription_exists", "This agent has a subscription of this type and target.")
    if len(items) >= MAX_PER_AGENT:
        raise Conflict("too_many_subscriptions", f"An agent may have {MAX_PER_AGENT} subscriptions.")
    return (*items, new)


def _without(items: Sequence[Subscription], subscription_id: str) -> tuple[Subscription, ...]:
    return tuple(each for each in items if each.id != subscription_id)


def _bad_target(message: str) -> Malformed:
    return Malformed("invalid_delivery_target", message, field="delivery_target")


def _bad_url(message: str) -> Malformed:
    return Malformed("invalid_webhook_url", message, field="webhook_url")


def _origin(url: str | None) -> str | None:
    """Scheme and host: the rest of a webhook's URL may be a secret."""
    if url is None:
        return None
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}"
