"""A gateway on the real servers for tests of its HTTP interface: three callers, and short ways to set a scene."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
from pydantic import SecretStr

from contracts.clock import Clock
from contracts.errors import Unavailable
from gateway.__main__ import Gateway, build
from gateway.directory import ensure_admin_key, fresh_key_text
from gateway.keys import parse_key
from infra.clock import SystemClock, SystemIds
from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.settings import GatewaySettings
from tests.open_door import open_door_at

MIB = 1024**2
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody with a key, or without one."""

    http: httpx.AsyncClient
    key: str
    owner: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    @property
    def key_id(self) -> str:
        key = parse_key(self.key)
        assert key is not None
        return key.key_id

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {**self.headers, **options.pop("headers", {})}
        return await self.http.request(method, path, headers=headers, **options)

    async def get(self, path: str, **params: Any) -> Json:
        """The body of a GET that has to succeed."""
        return expect(200, await self.call("GET", path, params=params))

    async def post(self, path: str, body: Json | None = None, *, status: int = 200, **options: Any) -> Json:
        """The body of a POST that has to be answered with `status`."""
        return expect(status, await self.call("POST", path, json=body or {}, **options))

    async def patch(self, path: str, body: Json, *, status: int = 200) -> Json:
        return expect(status, await self.call("PATCH", path, json=body))

    async def delete(self, path: str, *, status: int = 200) -> Json:
        return expect(status, await self.call("DELETE", path))

    async def agent(self, slug: str, *capabilities: str, **more: Any) -> Json:
        """Register an agent with these capabilities."""
        body = {"slug": slug, "delivery_capabilities": list(capabilities) or ["inbox"], **more}
        return await self.post("/v1/agents", body, status=201)

    async def session(self, slug: str, label: str = "main", **more: Any) -> Json:
        """Attach a live session; its first beat makes it fresh."""
        return await self.post(f"/v1/agents/{slug}/live-sessions", {"label": label, **more}, status=201)

    async def send(self, to: str, message: str = "Are you there?", **more: Any) -> Json:
        return await self.post("/v1/messages", {"to": to, "message": message, **more}, status=201)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """A running gateway and who calls it."""

    gateway: Gateway
    admin: Caller
    max: Caller
    eve: Caller
    nobody: Caller
    http: httpx.AsyncClient


def expect(status: int, response: httpx.Response) -> Json:
    assert response.status_code == status, f"{response.status_code}: {response.text}"
    body: Json = response.json() if response.content else {}
    return body


def code_of(response: httpx.Response) -> str:
    """The stable code of a refusal, whose shape is checked on the way."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = response.json()
    assert body["status"] == body["error"]["status"] == response.status_code
    assert body["detail"] == body["error"]["message"]
    code: str = body["error"]["code"]
    return code


def settings_for(nats: NatsEndpoint, redis: RedisEndpoint, prefix: str, **more: Any) -> GatewaySettings:
    return GatewaySettings(
        nats_url=SecretStr(nats.url),
        redis_url=SecretStr(redis.url),
        prefix=prefix,
        ledger_max_bytes=64 * MIB,
        directory_max_bytes=16 * MIB,
        events_max_bytes=16 * MIB,
        **{"rate_limits": "off", "nats_edge_signing_key": nats.identity.signer_path("EDGE"), **more},
    )


async def vouch_for_lists(gateway: Gateway) -> None:
    """Set the marker, also on a machine so busy that Redis is slow to take the first connection."""
    with anyio.fail_after(10):
        while True:
            try:
                await gateway.projection.epoch()
                await gateway.projection.set_epoch(0)
            except Unavailable:
                await anyio.sleep(0.05)
            else:
                return


@asynccontextmanager
async def running_rig(
    nats: NatsEndpoint, redis: RedisEndpoint, prefix: str, *, clock: Clock | None = None, **more: Any
) -> AsyncIterator[Rig]:
    """A gateway whose lists are vouched for: the marker the router would set is set here."""
    async with build(settings_for(nats, redis, prefix, **more), clock) as gateway:
        await vouch_for_lists(gateway)
        await open_door_at(redis.url, prefix)
        text = fresh_key_text(SystemIds())
        await ensure_admin_key(gateway.parts.store, SystemClock(), text)
        transport = httpx.ASGITransport(app=gateway.app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            admin = Caller(http=http, key=text, owner="local")
            yield Rig(
                gateway=gateway,
                http=http,
                admin=admin,
                max=await _caller(admin, "max"),
                eve=await _caller(admin, "eve"),
                nobody=Caller(http=http, key="", owner=""),
            )


async def _caller(admin: Caller, owner: str) -> Caller:
    minted = await admin.post("/v1/keys", {"owner": owner, "name": "test"}, status=201)
    return Caller(http=admin.http, key=minted["key"], owner=owner)
