"""What the gateway tells owners: agents, sessions, keys and subscriptions come and go, and guards trip."""

from collections.abc import Sequence

import structlog

from contracts.clock import Clock, Ids
from contracts.errors import Unavailable
from contracts.ids import execution_id
from contracts.records import Agent, ApiKey, JsonObject, LiveSession, ServiceAccount
from contracts.subscriptions import Subscription
from contracts.tenant_events import EventType, TenantEvent
from gateway.ports import EventLog
from router.explain import View
from router.service import Draft, Standing

log = structlog.get_logger()


class Notices:
    """Writes to the log of events after the change is made, which nothing here can fail."""

    def __init__(self, *, log: EventLog, clock: Clock, ids: Ids) -> None:
        self._log = log
        self._clock = clock
        self._ids = ids

    async def agent(self, kind: EventType, agent: Agent) -> None:
        await self._tell(kind, agent.owner, agent.id, agent.id, {"slug": agent.slug, "status": agent.status.value})

    async def session(self, kind: EventType, agent: Agent, session: LiveSession) -> None:
        data = {"session_id": session.id, "label": session.label, "is_default": session.is_default}
        await self._tell(kind, agent.owner, agent.id, session.id, data)

    async def key(self, kind: EventType, key: ApiKey) -> None:
        data = {"key_id": key.key_id, "name": key.name, "admin": key.admin}
        await self._tell(kind, key.owner, None, key.key_id, data)

    async def account(self, kind: EventType, account: ServiceAccount) -> None:
        data = {"service_account_id": account.id, "name": account.name, "status": account.status.value}
        await self._tell(kind, account.owner, None, account.id, data)

    async def subscription(self, kind: EventType, subscription: Subscription) -> None:
        data = {
            "subscription_id": subscription.id,
            "event_type": subscription.event_type,
            "delivery_target": subscription.target.value,
        }
        await self._tell(kind, subscription.owner, subscription.agent_id, subscription.id, data)

    async def guard(self, draft: Draft, refusal: View) -> None:
        """Tell the receiving and the sending owner, under the same id, what refused a message between them."""
        recipient, sender, context = draft.recipient, draft.sender, draft.context
        data = {
            "gate": refusal["gate"],
            "reason": refusal["reason"],
            "facts": {name: value for name, value in refusal["facts"].items() if name != "opened"},
            "recipient_owner": recipient.owner,
            "sender_agent_id": sender.agent_id,
            "sender_owner": sender.owner,
            "thread_id": context.thread_id,
            "reply_to": context.reply_to,
        }
        event_id = self._new_id()
        for owner in dict.fromkeys((recipient.owner, sender.owner)):
            subject = context.thread_id or recipient.id
            await self._tell(EventType.GUARD_TRIPPED, owner, recipient.id, subject, data, event_id)

    async def job(self, standing: Standing, events: Sequence[JsonObject]) -> None:
        """What a worker tells of its job, as one event: all of it is kept, or nothing. Raises `Unavailable`."""
        message, lease = standing.history.message, standing.execution.lease
        job_id = execution_id(standing.history.ulid, standing.execution.number)
        told = {"worker_id": lease.holder, "attempt": lease.number} if lease else {}
        event = self._event(
            EventType.JOB_TOLD, message.agent_owner, message.agent_id, job_id, {**told, "events": list(events)}
        )
        await self._log.publish(event)

    def _new_id(self) -> str:
        return f"evt_{self._ids.ulid()}"

    async def _tell(
        self,
        kind: EventType,
        owner: str,
        agent_id: str | None,
        subject: str,
        data: JsonObject,
        event_id: str | None = None,
    ) -> None:
        event = self._event(kind, owner, agent_id, subject, data, event_id)
        try:
            await self._log.publish(event)
        except Unavailable as error:
            log.warning("event_untold", event_type=kind.value, subject=subject, code=error.code)

    def _event(
        self,
        kind: EventType,
        owner: str,
        agent_id: str | None,
        subject: str,
        data: JsonObject,
        event_id: str | None = None,
    ) -> TenantEvent:
        return TenantEvent(
            id=event_id or self._new_id(),
            type=kind,
            owner=owner,
            agent_id=agent_id,
            subject=subject,
            time=self._clock.now(),
            data={"recipient_agent_id": agent_id, **data},
        )
