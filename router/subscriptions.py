"""Posts events to their subscribers: in order, at least once, each subscription by one router at a time.

    event log ──follow──▶ whose? ──▶ one loop per subscription with something to do:
                                     wait till allowed ▶ take the mark ▶ read ▶ POST ▶ write the mark ▶ …

The mark is a directory record changed by compare-and-set: who lost it in between has posted a batch twice at worst,
under the same ids. A subscription that hangs delays no other.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import structlog
from anyio.abc import TaskGroup

from contracts import ids
from contracts.clock import Clock
from contracts.errors import Stale, Unavailable
from contracts.records import JsonObject
from contracts.subscriptions import DeliveryTarget, Subscription
from contracts.tenant_events import ANY_TYPE, EventFilter, EventType, StoredEvent, TenantEvent
from router import dispatch
from router.explain import instant
from router.places import PlaceLimits, Places, host_of
from router.ports import Directory, EventLog, Ledger, PostResult, WebhookSender
from router.store_ports import MarkHeld, SubscriptionStore

TIMEOUT_S: Final = 15.0
HOLD_MARGIN_S: Final = 5.0
"""How much longer than a POST may take a subscription is held: nobody else posts meanwhile."""
AT_ONCE: Final = PlaceLimits(in_all=256, per_owner=32, per_host=8)
LOOK_AGAIN_S: Final = 60.0

T = TypeVar("T")
log = structlog.get_logger("router.subscriptions")


@dataclass(slots=True)
class _Loop:
    """A subscription being worked on. `again`: an event came since its loop last looked."""

    again: bool = True


class Dispatcher:
    """One router's dispatcher. `run` returns when cancelled."""

    def __init__(
        self,
        *,
        name: str,
        log: EventLog,
        store: SubscriptionStore,
        directory: Directory,
        ledger: Ledger,
        sender: WebhookSender,
        clock: Clock,
        to_json: Callable[[Any], bytes],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._name = name
        self._log = log
        self._store = store
        self._directory = directory
        self._ledger = ledger
        self._sender = sender
        self._clock = clock
        self._to_json = to_json
        self._timeout_s = timeout_s
        self._places = Places(AT_ONCE)
        self._loops: dict[str, _Loop] = {}
        self._subscribed: set[str] = set()

    async def run(self) -> None:
        # Known before the first look: what comes after it is followed, what came before it is looked at.
        after = await _patiently(self._log.last_seq)
        async with anyio.create_task_group() as group:
            group.start_soon(self._look_at_all, group)
            group.start_soon(self._follow, after, group)

    async def _follow(self, after: int, group: TaskGroup) -> None:
        async with aclosing(self._log.follow_all(after=after)) as batches:
            async for batch in batches:
                for agent_id in self._concerned(batch):
                    await _patiently(partial(self._wake, agent_id, group))

    def _concerned(self, batch: Sequence[tuple[str, str, str]]) -> set[str]:
        """The agents of these events that somebody subscribed to; a subscription announces itself by its event."""
        created = {agent for _, agent, kind in batch if kind == EventType.SUBSCRIPTION_CREATED}
        self._subscribed |= created
        return {agent for _, agent, _ in batch} & self._subscribed

    async def _look_at_all(self, group: TaskGroup) -> None:
        """At the start and every minute: what was left by a router that is gone, and what nobody told us of."""
        while True:
            # Added only: somebody may have subscribed while the list was read.
            self._subscribed |= set(await _patiently(self._store.agents))
            for agent_id in self._subscribed.copy():
                await _patiently(partial(self._wake, agent_id, group))
            await anyio.sleep(LOOK_AGAIN_S)

    async def _wake(self, agent_id: str, group: TaskGroup) -> None:
        for subscription in (await self._store.of_agent(agent_id)).items:
            if subscription.target is not DeliveryTarget.WEBHOOK:
                continue
            loop = self._loops.get(subscription.id)
            if loop is None:
                loop = self._loops[subscription.id] = _Loop()
                group.start_soon(self._work, subscription, loop)
            loop.again = True

    # --- one subscription ------------------------------------------------------------------------------------------

    async def _work(self, subscription: Subscription, loop: _Loop) -> None:
        try:
            while loop.again:
                loop.again = False
                await self._until_nothing_is_left(subscription)
        finally:
            del self._loops[subscription.id]

    async def _until_nothing_is_left(self, subscription: Subscription) -> None:
        is_more = True
        while is_more:
            try:
                is_more = await self.step(subscription)
            except Stale:
                log.debug("mark_taken_by_another", subscription_id=subscription.id)
            except Unavailable as error:
                log.warning("dispatch_postponed", subscription_id=subscription.id, reason=error.code)
                await anyio.sleep(error.retry_after_s)

    async def step(self, known: Subscription) -> bool:
        """Post one batch, or wait until that is allowed; False when there is nothing to post."""
        subscription = await self._store.subscription(known)
        if subscription is None or not await self._is_wanted(subscription):
            return False
        held = await self._store.mark(subscription.id)
        events = await self._pending(subscription, held)
        if not events:
            return False
        now = self._clock.now()
        if (then := dispatch.not_before(held.mark, self._name, now)) is not None:
            await anyio.sleep((then - now).total_seconds())
            return True
        # The hold is counted from here: waiting for a place may take longer than it lasts.
        async with self._places.place(subscription.owner, host_of(subscription.webhook_url or "")):
            held = await self._held(subscription, held)
            result = await self._post(subscription, events)
        await self._settle(subscription, held, events, result)
        return True

    async def _held(self, subscription: Subscription, held: MarkHeld) -> MarkHeld:
        """Held by this router for as long as a POST may take. Raises `Stale` when another took it meanwhile."""
        now = self._clock.now()
        if dispatch.is_held(held.mark, self._name, now + timedelta(seconds=self._timeout_s)):
            return held
        mark = dispatch.taken(held.mark, self._name, self._hold_until(now))
        return await self._store.set_mark(subscription.id, mark, expected_seq=held.seq)

    def _hold_until(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._timeout_s + HOLD_MARGIN_S)

    async def _is_wanted(self, subscription: Subscription) -> bool:
        agent = await self._directory.agent(subscription.agent_id)
        return agent is not None and agent.deleted_at is None

    async def _pending(self, subscription: Subscription, held: MarkHeld) -> Sequence[StoredEvent]:
        kind = None if subscription.event_type == ANY_TYPE else subscription.event_type
        wanted = EventFilter(owner=subscription.owner, agent_id=subscription.agent_id, type=kind)
        after = dispatch.position(subscription, held.mark)
        return (await self._log.read(wanted, after=after, limit=dispatch.BATCH)).events

    async def _post(self, subscription: Subscription, events: Sequence[StoredEvent]) -> PostResult:
        named = dispatch.delivery_id(subscription, events)
        views = [await self._view(subscription, event) for event in events]
        body = self._to_json(dispatch.payload(subscription, named, views, self._clock.now()))
        return await self._sender.post(
            url=subscription.webhook_url or "",
            secret=subscription.webhook_secret or "",
            message_id=named,
            body=body,
            timeout_s=self._timeout_s,
        )

    async def _view(self, subscription: Subscription, event: StoredEvent) -> JsonObject:
        view = dispatch.event_view(event)
        if not subscription.inline_body or event.type != EventType.MESSAGE_DELIVERED:
            return view
        ulid = ids.ulid_of_message(event.data["message_id"])
        history = await self._ledger.load(ulid, fresh=False) if ulid else None
        return view if history is None else dispatch.with_body(view, history.message.body)

    async def _settle(
        self, subscription: Subscription, held: MarkHeld, events: Sequence[StoredEvent], result: PostResult
    ) -> None:
        """The POST cannot be taken back: its record waits for the broker, or for the mark to be another's."""
        now = self._clock.now()
        if dispatch.is_delivered(result):
            until = self._hold_until(now) if len(events) == dispatch.BATCH else None
            mark = dispatch.delivered(held.mark, events[-1].seq, now, hold_until=until)
        else:
            mark = dispatch.failed(held.mark, result, now)
        mark = dispatch.logged(mark, events, result, now)
        await _patiently(partial(self._store.set_mark, subscription.id, mark, expected_seq=held.seq))
        log.info(
            "events_posted",
            subscription_id=subscription.id,
            agent_id=subscription.agent_id,
            events=len(events),
            status=result.status,
            error=result.error,
            failures=mark.failures,
        )
        if mark.paused_until is not None:
            await self._tell_paused(subscription, mark.failures, mark.paused_until, now)

    async def _tell_paused(
        self, subscription: Subscription, failures: int, paused_until: datetime, now: datetime
    ) -> None:
        event = TenantEvent(
            id=f"evt_{subscription.id}_{int(paused_until.timestamp())}",
            type=EventType.SUBSCRIPTION_PAUSED,
            owner=subscription.owner,
            agent_id=subscription.agent_id,
            subject=subscription.id,
            time=now,
            data={
                "subscription_id": subscription.id,
                "recipient_agent_id": subscription.agent_id,
                "failures": failures,
                "paused_until": instant(paused_until),
            },
        )
        try:
            await self._log.publish(event)
        except Unavailable as error:
            log.warning("pause_untold", subscription_id=subscription.id, reason=error.code)


async def _patiently(step: Callable[[], Awaitable[T]]) -> T:
    """Take a step until the broker is there for it."""
    while True:
        try:
            return await step()
        except Unavailable as error:
            log.warning("dispatcher_waits", reason=error.code)
            await anyio.sleep(error.retry_after_s)
