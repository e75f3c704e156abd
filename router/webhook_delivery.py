"""One webhook delivery: one lease, one signed POST, one record, and what it says of the receiver's health."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import structlog

from contracts import ids
from contracts.clock import Clock
from contracts.errors import Unavailable
from contracts.records import Agent, Envelope, Outcome, WebhookAnswer
from contracts.tenant_events import EventType, TenantEvent
from contracts.words import Channel, DeliveryRoute, Reason
from router.deadlines import Failure
from router.desk import Standing
from router.metrics import WebhookMetrics
from router.ports import Directory, PostResult, Pushes, WebhookSender
from router.service import Service
from router.webhook_payload import payload

TIMEOUT_S: Final = 15.0
LEASE_MARGIN_S: Final = 10.0
GONE: Final = 410
DISABLE_AFTER: Final = timedelta(days=5)

Publish = Callable[[TenantEvent], Awaitable[None]]
T = TypeVar("T")
log = structlog.get_logger("router.webhooks")


class WebhookDelivery:
    """What one router does with one message. `publish` writes to the log of tenants' events.

    `pushes` tells whoever listens along; `disable_after` is how long a receiver may fail before it is disabled.
    """

    def __init__(
        self,
        *,
        service: Service,
        sender: WebhookSender,
        directory: Directory,
        pushes: Pushes,
        publish: Publish,
        clock: Clock,
        name: str,
        to_json: Callable[[Any], bytes],
        metrics: WebhookMetrics,
        timeout_s: float = TIMEOUT_S,
        disable_after: timedelta = DISABLE_AFTER,
    ) -> None:
        self._service = service
        self._sender = sender
        self._directory = directory
        self._pushes = pushes
        self._publish = publish
        self._clock = clock
        self._name = name
        self._to_json = to_json
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._disable_after = disable_after

    async def deliver(self, ulid: str) -> PostResult | None:
        """Lease, POST, record; None when another router was faster or the message is not due."""
        leased = await self._service.lease_webhook(ulid, holder=self._name, lease_s=self._timeout_s + LEASE_MARGIN_S)
        if leased is None:
            return None
        agent = await self._directory.agent(leased.history.message.agent_id)
        if agent is None or agent.webhook_url is None or agent.webhook_secret is None:
            await self._record(leased, Failure(reason=Reason.WEBHOOK_URL_MISSING, is_final=True), None)
            return None
        result = await self._post(leased, agent)
        self._metrics.attempted(result)
        self._log(leased, result)
        # Before the record: what ends a message for being gone has disabled its receiver.
        await self._learn(agent, result)
        await self._record(leased, ended(result), answer_of(result))
        return result

    async def _post(self, standing: Standing, agent: Agent) -> PostResult:
        now = self._clock.now()
        await self._pushes.push(_hint(standing, now))
        return await self._sender.post(
            url=agent.webhook_url or "",
            secret=" ".join(agent.webhook_secrets(now)),
            message_id=standing.history.message.id,
            body=self._to_json(payload(standing)),
            timeout_s=self._timeout_s,
        )

    async def _record(self, leased: Standing, ending: Outcome | Failure, answer: WebhookAnswer | None) -> None:
        """The POST is made and cannot be taken back: its record waits for the broker, or for the lease to be lost."""
        settle = partial(self._service.settle_webhook, leased, ending, by=self._name, answer=answer)
        await self._persist(settle, leased.history.ulid)

    async def _learn(self, agent: Agent, result: PostResult) -> None:
        """Tried once: the next attempt learns the same again, and the record of this one must not wait for it."""
        try:
            await self._note_health(agent, result)
        except Unavailable as error:
            log.warning("webhook_health_unnoted", agent_id=agent.id, reason=error.code)

    async def _note_health(self, agent: Agent, result: PostResult) -> None:
        now = self._clock.now()
        if is_delivered(result):
            if agent.webhook_failing_since is not None:
                await self._directory.note_webhook(agent, None)
        elif result.status == GONE:
            await self._disable(agent, Reason.RECEIVER_GONE.value, now)
        elif agent.webhook_failing_since is None:
            await self._directory.note_webhook(agent, now)
        elif now - agent.webhook_failing_since >= self._disable_after:
            await self._disable(agent, Reason.RECEIVER_FAILING.value, now)

    async def _disable(self, agent: Agent, reason: str, now: datetime) -> None:
        if not await self._directory.disable_webhook(agent, now, reason):
            return
        self._metrics.disabled(reason)
        log.warning("webhook_disabled", agent_id=agent.id, reason=reason)
        event = TenantEvent(
            id=f"evt_{agent.id}_webhook_{int(now.timestamp() * 1000)}",
            type=EventType.WEBHOOK_DISABLED,
            owner=agent.owner,
            agent_id=agent.id,
            subject=agent.id,
            time=now,
            data={
                "recipient_agent_id": agent.id,
                "slug": agent.slug,
                "reason": reason,
                # Nothing leads from the hidden agent to its cue, which is where it is enabled.
                **({"cue_id": agent.cue_id} if agent.cue_id else {}),
            },
        )
        try:
            await self._publish(event)
        except Unavailable as error:
            log.warning("event_untold", event_type=event.type.value, subject=agent.id, code=error.code)

    async def _persist(self, step: Callable[[], Awaitable[T]], ulid: str) -> T:
        while True:
            try:
                return await step()
            except Unavailable as error:
                log.warning("webhook_postponed", message_ulid=ulid, reason=error.code)
                await anyio.sleep(error.retry_after_s)

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


def is_delivered(result: PostResult) -> bool:
    return result.status is not None and 200 <= result.status < 300


def answer_of(result: PostResult) -> WebhookAnswer:
    """What is kept of an attempt: the error's code also where a status says it."""
    error = result.error or (None if is_delivered(result) else f"http_{result.status}")
    return WebhookAnswer(status=result.status, latency_ms=result.latency_ms, error=error, response=result.excerpt)


def ended(result: PostResult) -> Outcome | Failure:
    """Success is any 2xx. 410 is the receiver's last word; everything else is tried again."""
    if is_delivered(result):
        metadata = {"http_status": result.status, "latency_ms": result.latency_ms}
        return Outcome(success=True, metadata=metadata, executed_via="webhook", route=DeliveryRoute.WEBHOOK)
    answer = answer_of(result)
    return Failure(
        reason=Reason.RECEIVER_GONE if result.status == GONE else Reason.ATTEMPT_FAILED,
        detail=answer.error,
        http_status=result.status,
        latency_ms=result.latency_ms,
        answer=answer,
        asked_s=result.retry_after_s,
        is_final=result.status == GONE,
    )


def _hint(standing: Standing, now: datetime) -> Envelope:
    """That a webhook is being posted; what it says is fetched over HTTPS by whoever may."""
    message = standing.history.message
    return Envelope(
        channel=Channel.WEBHOOK,
        agent_id=message.agent_id,
        execution_id=ids.execution_id(standing.history.ulid, standing.execution.number),
        message_id=message.id,
        sent_at=now,
    )
