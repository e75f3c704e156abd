"""What the gateway tells owners of its own changes: agents, sessions, keys and subscriptions come and go."""

import structlog

from contracts.clock import Clock, Ids
from contracts.errors import Unavailable
from contracts.records import Agent, ApiKey, JsonObject, LiveSession
from contracts.subscriptions import Subscription
from contracts.tenant_events import EventType, TenantEvent
from gateway.ports import EventLog

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

    async def subscription(self, kind: EventType, subscription: Subscription) -> None:
        data = {
            "subscription_id": subscription.id,
            "event_type": subscription.event_type,
            "delivery_target": subscription.target.value,
        }
        await self._tell(kind, subscription.owner, subscription.agent_id, subscription.id, data)

    async def _tell(self, kind: EventType, owner: str, agent_id: str | None, subject: str, data: JsonObject) -> None:
        event = TenantEvent(
            id=f"evt_{self._ids.ulid()}",
            type=kind,
            owner=owner,
            agent_id=agent_id,
            subject=subject,
            time=self._clock.now(),
            data={"recipient_agent_id": agent_id, **data},
        )
        try:
            await self._log.publish(event)
        except Unavailable as error:
            log.warning("event_untold", event_type=kind.value, subject=subject, code=error.code)
