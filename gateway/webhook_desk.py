"""An agent's webhook as its owner keeps it: how it is signed, how fast it is posted to, and whether at all."""

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from pydantic_core import to_json

from contracts.clock import Clock, Ids
from contracts.directory import agent_key
from contracts.errors import Conflict, TooMany
from contracts.records import Agent, JsonObject, Principal
from gateway.address import parse_address
from gateway.agents import enabled
from gateway.directory import Directory, decided
from gateway.ports import Bucket, DirectoryStore, RateLimits, WebhookDoor, Write
from gateway.problems import agent_not_found
from gateway.schemas_webhooks import Rotation, WebhookChange
from router.explain import instant
from router.ports import PostResult

PINGS: Final = Bucket(per_s=0.5, size=10)
"""How many tests an owner may make."""
PING_TIMEOUT_S: Final = 10.0
PRIVATE_PREFIX: Final = "whsk_"


class WebhookDesk:
    """Changes and tests of webhooks, for whoever may change the agent."""

    def __init__(self, *, store: DirectoryStore, door: WebhookDoor, limits: RateLimits, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._directory = Directory(store)
        self._door = door
        self._limits = limits
        self._clock = clock
        self._ids = ids

    def view(self, agent: Agent) -> JsonObject:
        secret = agent.webhook_secret
        is_rotating = agent.webhook_old_until is not None and self._clock.now() < agent.webhook_old_until
        return {
            "agent_id": agent.id,
            "url": agent.webhook_url,
            "signature": None if secret is None else "v1a" if secret.startswith(PRIVATE_PREFIX) else "v1",
            "public_key": self._door.public_key(secret) if secret else None,
            "previous_secret_until": instant(agent.webhook_old_until) if is_rotating else None,
            "max_in_flight": agent.webhook_max_in_flight,
            "per_s": agent.webhook_per_s,
            "failing_since": instant(agent.webhook_failing_since),
            "disabled_at": instant(agent.webhook_disabled_at),
            "disabled_reason": agent.webhook_disabled_reason,
        }

    async def change(self, reference: str, wanted: WebhookChange, principal: Principal) -> Agent:
        """Change how fast the receiver may be posted to."""
        fields = {f"webhook_{name}": getattr(wanted, name) for name in wanted.model_fields_set}
        return await self._changed(reference, principal, lambda agent: replace(agent, **fields))

    async def rotate(self, reference: str, wanted: Rotation, principal: Principal) -> Agent:
        """Another secret; the one before it goes on signing for `overlap_s`. Raises `Conflict` (`no_webhook_url`)."""

        def rotated(agent: Agent) -> Agent:
            _require_url(agent)
            was_asymmetric = (agent.webhook_secret or "").startswith(PRIVATE_PREFIX)
            is_asymmetric = was_asymmetric if wanted.signature is None else wanted.signature == "v1a"
            return replace(
                agent,
                webhook_secret=self._new_secret("whsk_" if is_asymmetric else "whsec_"),
                webhook_old_secret=agent.webhook_secret if wanted.overlap_s else None,
                webhook_old_until=self._clock.now() + timedelta(seconds=wanted.overlap_s) if wanted.overlap_s else None,
            )

        return await self._changed(reference, principal, rotated)

    async def enable(self, reference: str, principal: Principal) -> Agent:
        """Post to it again, after it was gone or failed for days. Raises `Conflict` (`no_webhook_url`)."""

        def asked_again(agent: Agent) -> Agent:
            _require_url(agent)
            return enabled(agent)

        return await self._changed(reference, principal, asked_again)

    async def ping(self, agent: Agent) -> tuple[str, PostResult]:
        """Post a test, signed like any webhook: its id and what came of it. Raises `Conflict`, `TooMany`."""
        _require_url(agent)
        tokens = await self._limits.take(f"hook-test:{agent.owner}", PINGS, 1)
        if not tokens.granted:
            raise TooMany(
                "rate_limit_exceeded", "That is enough tests for now.", retry_after_s=max(0.001, tokens.retry_after_s)
            )
        named, now = f"test_{self._ids.ulid()}", self._clock.now()
        body = {
            "type": "webhook.test",
            "timestamp": instant(now),
            "data": {"id": named, "agent_id": agent.id, "slug": agent.slug, "owner": agent.owner},
        }
        result = await self._door.post(
            url=agent.webhook_url or "",
            secret=" ".join(agent.webhook_secrets(now)),
            message_id=named,
            body=to_json(body),
            timeout_s=PING_TIMEOUT_S,
        )
        return named, result

    def signed(self, agent: Agent, message_id: str, body: bytes) -> dict[str, str]:
        """The headers under which this body is posted to the agent's receiver now."""
        now = self._clock.now()
        _require_url(agent)
        return self._door.headers(agent.webhook_secrets(now), message_id, now, body)

    async def _changed(self, reference: str, principal: Principal, change: Callable[[Agent], Agent]) -> Agent:
        address = parse_address(reference, field="ref")

        async def step() -> Agent:
            agent = await self._directory.resolve(address, principal, action="webhook.update", fresh=True)
            found = await self._store.get(agent_key(agent.id), Agent, fresh=True)
            if found is None or found.record.deleted_at is not None:
                raise agent_not_found()
            after = replace(change(found.record), updated_at=self._clock.now())
            await self._store.transact([Write(key=agent_key(agent.id), record=after, expected_seq=found.seq)])
            return after

        return await decided(step)

    def _new_secret(self, prefix: str) -> str:
        return prefix + base64.b64encode(self._ids.secret(32)).decode()


def _require_url(agent: Agent) -> None:
    if agent.webhook_url is None or agent.webhook_secret is None:
        raise Conflict("no_webhook_url", "This agent has no webhook URL.")
