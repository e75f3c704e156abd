"""Webhooks by receiver: who waits, who may be posted to now, and who rests. One hung receiver delays nobody else.

due ──▶ its receiver's line ──breaker, rate, places──▶ delivery (lease, POST, record)
                  └──rests──▶ back to the agenda until then: no attempt is spent on not being sent
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import anyio
import structlog
from anyio.abc import TaskGroup

from contracts.clock import Clock
from contracts.errors import Unavailable
from contracts.records import Agent
from router.breaker import Circuit
from router.metrics import WebhookMetrics
from router.places import PlaceLimits, Places, host_of
from router.ports import Directory, PostResult
from router.receivers import Postpone, Receiver
from router.webhook_delivery import WebhookDelivery

SHORT_REST_S: Final = 1.0
"""What is waited out here; for more the messages are given back."""
REMEMBERED: Final = 10_000

T = TypeVar("T")
log = structlog.get_logger("router.webhooks")


class Webhooks:
    """Delivers what is due, by receiver. `start` returns at once; the work runs in the given task group."""

    def __init__(
        self,
        *,
        delivery: WebhookDelivery,
        directory: Directory,
        clock: Clock,
        metrics: WebhookMetrics,
        limits: PlaceLimits | None = None,
    ) -> None:
        self._delivery = delivery
        self._directory = directory
        self._clock = clock
        self._places = Places(limits)
        self._receivers: dict[str, Receiver] = {}
        metrics.show(in_flight=lambda: self._places.taken, breakers_open=self._breakers_open)

    def start(self, ulid: str, agent_id: str, group: TaskGroup, postpone: Postpone) -> None:
        """Deliver one message as soon as its receiver may be posted to, or give it back until then."""
        receiver = self._receivers.get(agent_id)
        if receiver is None:
            self._forget_the_idle()
            receiver = self._receivers[agent_id] = Receiver()
        receiver.add(ulid, postpone)
        if receiver.waiting and not receiver.is_served:
            receiver.is_served = True
            group.start_soon(self._serve, agent_id, receiver, group)

    async def _serve(self, agent_id: str, receiver: Receiver, group: TaskGroup) -> None:
        try:
            while receiver.waiting:
                agent = await _patiently(partial(self._directory.agent, agent_id), agent_id)
                if agent is None or agent.webhook_url is None:
                    self._begin_without(receiver, agent_id, group)
                else:
                    receiver.know(agent)
                    await self._next(agent, receiver, group)
        finally:
            receiver.is_served = False
            self._forget(agent_id, receiver)

    async def _next(self, agent: Agent, receiver: Receiver, group: TaskGroup) -> None:
        """Begin one delivery, or wait until something has changed."""
        if receiver.is_busy(agent):
            await receiver.changed.wait()
            return
        if await self._rests(agent, receiver):
            return
        host = host_of(agent.webhook_url or "")
        await self._places.take(agent.owner, host)
        now = self._clock.now()
        # While it stood in line, another delivery may have failed.
        if receiver.is_busy(agent) or receiver.rests_until(agent, now) is not None:
            self._places.free(agent.owner, host)
            return
        ulid = receiver.begin(agent, now)
        group.start_soon(self._run, ulid, agent.id, receiver, partial(self._places.free, agent.owner, host))

    async def _rests(self, agent: Agent, receiver: Receiver) -> bool:
        now = self._clock.now()
        until = receiver.rests_until(agent, now)
        if until is None:
            return False
        if (rest_s := (until - now).total_seconds()) > SHORT_REST_S:
            log.debug("webhook_receiver_rests", agent_id=agent.id, waiting=len(receiver.waiting), rest_s=round(rest_s))
            receiver.give_back(until)
        else:
            await anyio.sleep(max(0.0, rest_s))
        return True

    def _begin_without(self, receiver: Receiver, agent_id: str, group: TaskGroup) -> None:
        """Nobody is there to post to: the delivery finds out and says so in the record."""
        ulid = receiver.order.popleft()
        del receiver.waiting[ulid]
        receiver.under_way.add(ulid)
        group.start_soon(self._run, ulid, agent_id, receiver, lambda: None)

    async def _run(self, ulid: str, agent_id: str, receiver: Receiver, free: Callable[[], None]) -> None:
        result: PostResult | None = None
        try:
            result = await _patiently(partial(self._delivery.deliver, ulid), agent_id)
        finally:
            free()
            receiver.end(ulid, result, self._clock.now())
            self._forget(agent_id, receiver)

    def _breakers_open(self) -> int:
        return sum(each.breaker.circuit is not Circuit.CLOSED for each in self._receivers.values())

    def _forget(self, agent_id: str, receiver: Receiver) -> None:
        if receiver.is_forgettable and self._receivers.get(agent_id) is receiver:
            del self._receivers[agent_id]

    def _forget_the_idle(self) -> None:
        """What is remembered of receivers that fail is bounded: the ones known longest are tried anew."""
        if len(self._receivers) < REMEMBERED:
            return
        idle = [key for key, each in self._receivers.items() if not (each.waiting or each.under_way or each.is_served)]
        for key in idle[: REMEMBERED // 2]:
            del self._receivers[key]


async def _patiently(step: Callable[[], Awaitable[T]], agent_id: str) -> T:
    """Take a step until the broker is there for it."""
    while True:
        try:
            return await step()
        except Unavailable as error:
            log.warning("webhook_postponed", agent_id=agent_id, reason=error.code)
            await anyio.sleep(error.retry_after_s)
