"""Webhook deliveries: one lease, one signed POST, one record each. One hung receiver delays nobody else.

Each receiver has a queue of its own and a few deliveries under way at once; its other messages wait in that queue,
nobody else's do.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import anyio
import structlog
from anyio.abc import TaskGroup

from contracts import ids
from contracts.clock import Clock
from contracts.errors import Unavailable
from contracts.records import Agent, Message, Outcome
from contracts.words import DeliveryRoute, Reason
from router.deadlines import Failure
from router.desk import Standing
from router.explain import instant
from router.ports import Directory, PostResult, WebhookSender
from router.service import Service

PER_RECEIVER: Final = 4
TIMEOUT_S: Final = 15.0
LEASE_MARGIN_S: Final = 10.0
EXCERPT_CHARACTERS: Final = 500
GONE: Final = 410

log = structlog.get_logger("router.webhooks")


@dataclass(slots=True)
class _Receiver:
    waiting: deque[str] = field(default_factory=deque)
    under_way: set[str] = field(default_factory=set)


class Webhooks:
    """Delivers what is due, by receiver. `start` returns at once; the work runs in the given task group."""

    def __init__(
        self,
        *,
        service: Service,
        sender: WebhookSender,
        directory: Directory,
        clock: Clock,
        name: str,
        to_json: Any,
        timeout_s: float = TIMEOUT_S,
        per_receiver: int = PER_RECEIVER,
    ) -> None:
        self._service = service
        self._sender = sender
        self._directory = directory
        self._clock = clock
        self._name = name
        self._to_json = to_json
        self._timeout_s = timeout_s
        self._per_receiver = per_receiver
        self._receivers: dict[str, _Receiver] = {}

    def start(self, ulid: str, agent_id: str, group: TaskGroup) -> None:
        """Deliver one message as soon as its receiver has a place free; a message already here stays where it is."""
        receiver = self._receivers.setdefault(agent_id, _Receiver())
        if ulid in receiver.under_way or ulid in receiver.waiting:
            return
        receiver.waiting.append(ulid)
        self._fill(agent_id, group)

    def _fill(self, agent_id: str, group: TaskGroup) -> None:
        receiver = self._receivers[agent_id]
        while receiver.waiting and len(receiver.under_way) < self._per_receiver:
            ulid = receiver.waiting.popleft()
            receiver.under_way.add(ulid)
            group.start_soon(self._run, ulid, agent_id, group)
        if not receiver.waiting and not receiver.under_way:
            del self._receivers[agent_id]

    async def _run(self, ulid: str, agent_id: str, group: TaskGroup) -> None:
        try:
            await self._persist(lambda: self.deliver(ulid), ulid)
        finally:
            self._receivers[agent_id].under_way.discard(ulid)
            self._fill(agent_id, group)

    async def _persist(self, step: Callable[[], Awaitable[Standing | None]], ulid: str) -> Standing | None:
        """Take a step until the broker is there for it. A step that was taken without our knowing comes to None."""
        while True:
            try:
                return await step()
            except Unavailable as error:
                log.warning("webhook_postponed", message_ulid=ulid, reason=error.code)
                await anyio.sleep(error.retry_after_s)

    async def deliver(self, ulid: str) -> Standing | None:
        """Lease, POST, record; None when another router was faster or the message is not due."""
        leased = await self._service.lease_webhook(ulid, holder=self._name, lease_s=self._timeout_s + LEASE_MARGIN_S)
        if leased is None:
            return None
        message = leased.history.message
        agent = await self._directory.agent(message.agent_id)
        if agent is None or agent.webhook_url is None or agent.webhook_secret is None:
            gone = Failure(reason=Reason.WEBHOOK_URL_MISSING, is_final=True)
            return await self._record(leased, gone)
        result = await self._post(leased, agent)
        if result.status == GONE:
            await self._directory.disable_webhook(agent.id, self._clock.now())
        self._log(leased, result)
        return await self._record(leased, ended(result))

    async def _record(self, leased: Standing, ending: Outcome | Failure) -> Standing | None:
        """The POST is made and cannot be taken back: its record waits for the broker, or for the lease to be lost."""
        settle = partial(self._service.settle_webhook, leased, ending, by=self._name)
        return await self._persist(settle, leased.history.ulid)

    async def _post(self, standing: Standing, agent: Agent) -> PostResult:
        return await self._sender.post(
            url=agent.webhook_url or "",
            secret=agent.webhook_secret or "",
            message_id=standing.history.message.id,
            body=self._to_json(payload(standing)),
            timeout_s=self._timeout_s,
        )

    def _log(self, standing: Standing, result: PostResult) -> None:
        log.info(
            "webhook_attempted",
            message_id=standing.history.message.id,
            agent_id=standing.history.message.agent_id,
            attempt=standing.execution.leases,
            status=result.status,
            error=result.error,
            latency_ms=result.latency_ms,
        )


def payload(standing: Standing) -> dict[str, Any]:
    """What the receiver gets. `id` is the webhook id too: the receiver's idempotency key, stable over retries."""
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


def ended(result: PostResult) -> Outcome | Failure:
    """Success is any 2xx. 410 is the receiver's last word; everything else is tried again."""
    if result.status is not None and 200 <= result.status < 300:
        metadata = {"http_status": result.status, "latency_ms": result.latency_ms}
        return Outcome(success=True, metadata=metadata, executed_via="webhook", route=DeliveryRoute.WEBHOOK)
    excerpt = result.excerpt[:EXCERPT_CHARACTERS]
    error = result.error or f"http_{result.status}"
    return Failure(
        reason=Reason.RECEIVER_GONE if result.status == GONE else Reason.ATTEMPT_FAILED,
        detail=f"{error}: {excerpt}" if excerpt else error,
        http_status=result.status,
        latency_ms=result.latency_ms,
        asked_s=result.retry_after_s,
        is_final=result.status == GONE,
    )


def _addresses(message: Message) -> dict[str, Any]:
    return {
        "from": {"owner": message.sender.owner, "agent_id": message.sender.agent_id},
        "to": {"agent_id": message.agent_id, "slug": message.agent_slug, "owner": message.agent_owner},
    }
