"""A monitor's credentials renewed on the real broker: no push is missed over it, and the revoked hears no more."""

import json
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import anyio
import httpx
import pytest

from contracts.heartbeats import connection_name
from contracts.records import Envelope
from contracts.subjects import heartbeat
from infra.edge import EdgeFeed
from infra.edge_link import EdgeLink
from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.gateway_client import GatewayClient
from monitor.ports import BrokerLogin
from monitor.renewed_pushes import RenewedPushes
from tests.http_rig import Rig, running_rig
from tests.minted_monitors import overhear, revoking
from tests.raw_broker import raw_client

DEADLINE_S = 20


class Hurried:
    """The gateway, whose credentials are to be renewed after `every_s`."""

    def __init__(self, gateway: GatewayClient, every_s: float) -> None:
        self._gateway = gateway
        self._every_s = every_s
        self.minted = 0

    async def broker_login(self, monitor_id: str, public_key: str, agent_ids: Sequence[str]) -> BrokerLogin:
        self.minted += 1
        login = await self._gateway.broker_login(monitor_id, public_key, agent_ids)
        return replace(login, renew_after_s=self._every_s, lives_s=60.0)


@dataclass
class Following:
    """A monitor's ear: what it has heard, and how often its subscription stood anew."""

    pushes: RenewedPushes
    gateway: Hurried
    monitor_id: str
    agent_id: str
    heard: list[str] = field(default_factory=list)
    stood: int = 0


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    address = f"nats://127.0.0.1:{nats_server.port}"
    async with running_rig(nats_server, redis_server, prefix, nats_edge_url=address) as running:
        await running.max.agent("mac", "live")
        yield running


@asynccontextmanager
async def following(rig: Rig, *, every_s: float) -> AsyncIterator[Following]:
    monitor_id = f"host-{uuid.uuid4().hex[:12]}"
    agent_id = (await rig.max.get("/v1/agents/mac"))["id"]
    transport = httpx.ASGITransport(app=rig.gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=rig.max.headers) as http:
        gateway: Any = Hurried(GatewayClient(http), every_s)
        pushes = RenewedPushes(
            monitor_id=monitor_id,
            nats_url=None,
            gateway=gateway,
            new_link=lambda: EdgeLink(connection_name(monitor_id), retry_s=0.1),
            without_credentials=lambda url: EdgeFeed(url, name="nobody"),
            refused_again_s=0.2,
        )
        ear = Following(pushes=pushes, gateway=gateway, monitor_id=monitor_id, agent_id=agent_id)

        def heard(envelope: Envelope) -> None:
            ear.heard.append(envelope.execution_id)

        def stands() -> None:
            ear.stood += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pushes.follow, [f"live.{agent_id}.>"], heard, stands, lambda _: None)
            yield ear
            tasks.cancel_scope.cancel()


async def until(holds: Callable[[], object]) -> None:
    with anyio.fail_after(DEADLINE_S):
        while not holds():
            await anyio.sleep(0.01)


def envelope(agent_id: str, number: int) -> bytes:
    facts = {"v": 1, "channel": "live", "agent_id": agent_id, "execution_id": f"exec_{number}", "message_id": "msg_1"}
    return json.dumps(facts | {"sent_at": datetime.now(UTC).isoformat()}).encode()


async def test_over_many_renewals_no_push_is_missed_and_it_may_always_beat(rig: Rig, nats_server: NatsEndpoint) -> None:
    core = await raw_client(nats_server.url)
    async with following(rig, every_s=0.3) as ear:
        await until(lambda: ear.stood)
        beats = await overhear(core, heartbeat(ear.monitor_id))
        number = 0
        while ear.stood < 5:
            assert await ear.pushes.say(heartbeat(ear.monitor_id), b"alive")
            await core.publish(f"live.{ear.agent_id}.exec_{number}", envelope(ear.agent_id, number))
            number += 1
            await anyio.sleep(0.005)
        await until(lambda: f"exec_{number - 1}" in ear.heard and len(beats) >= number)
        assert set(ear.heard) == {f"exec_{each}" for each in range(number)}
        assert ear.gateway.minted >= 5
    await core.close()


async def test_what_is_withdrawn_hears_no_more_until_it_is_given_another(rig: Rig, nats_server: NatsEndpoint) -> None:
    async with revoking(rig, nats_server), following(rig, every_s=2.0) as ear:
        await until(lambda: ear.pushes.is_speaking)
        await rig.max.delete(f"/v1/monitors/{ear.monitor_id}/credentials", status=204)
        await until(lambda: not ear.pushes.is_speaking)
        await until(lambda: ear.pushes.is_speaking)
        assert ear.gateway.minted >= 2


async def test_a_monitor_whose_key_is_revoked_goes_silent_and_asks_on(rig: Rig, nats_server: NatsEndpoint) -> None:
    async with revoking(rig, nats_server), following(rig, every_s=1.0) as ear:
        await until(lambda: ear.pushes.is_speaking)
        await rig.max.delete(f"/v1/keys/{rig.max.key_id}", status=204)
        await until(lambda: not ear.pushes.is_speaking)
        asked = ear.gateway.minted
        await until(lambda: ear.gateway.minted > asked + 2)
        assert not ear.pushes.is_speaking
