"""Monitors with minted credentials for tests: nats-py's own client, so that nothing of ours is in an attack's way."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.account_revocations import AccountRevocations
from infra.clock import SystemClock
from infra.credential_book import DirectoryCredentials, directory_news
from infra.embedded import NatsEndpoint
from infra.first_answer import nats_answers
from infra.nats_jwt import Creds
from infra.nats_keys import Kind, NatsKey
from router.credential_watch import CredentialWatch
from tests.http_rig import Caller, Json, Rig


@dataclass
class Minted:
    """A credential and the key it is for; `errors` holds what the broker said to its connections, in lower case."""

    nats: NatsEndpoint
    monitor_id: str
    key: NatsKey
    jwt: str
    view: Json
    errors: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        client = await connect(self.nats, Creds(jwt=self.jwt, key=self.key), self.errors)
        try:
            yield client
        finally:
            await client.close()

    async def is_let_in(self) -> bool:
        """Whether the broker takes it, by a round trip."""
        return await nats_answers("127.0.0.1", self.nats.port, Creds(jwt=self.jwt, key=self.key))


async def mint(nats: NatsEndpoint, caller: Caller, monitor_id: str, *agents: str) -> Minted:
    key = NatsKey.fresh(Kind.USER)
    body = {"monitor_id": monitor_id, "public_key": key.public, "agents": list(agents)}
    view = await caller.post("/v1/monitors/credentials", body, status=201)
    return Minted(nats=nats, monitor_id=monitor_id, key=key, jwt=view["jwt"], view=view)


async def connect(nats_endpoint: NatsEndpoint, creds: Creds, errors: list[str] | None = None) -> Client:
    async def remember(error: Exception) -> None:
        if errors is not None:
            errors.append(str(error).lower())

    return await nats.connect(
        f"nats://127.0.0.1:{nats_endpoint.port}",
        user_jwt_cb=creds.jwt.encode,
        signature_cb=lambda nonce: base64.b64encode(creds.key.sign(nonce.encode())),
        error_cb=remember,
        allow_reconnect=False,
        max_reconnect_attempts=1,
        connect_timeout=2,
    )


async def settled(client: Client) -> None:
    """Until the server has read what was said. Twice, for nats-py's first ping may overtake what is still held back."""
    for _ in range(2):
        await client.flush()


async def overhear(client: Client, subject: str, queue: str = "") -> list[Msg]:
    """What is delivered for this subscription, as it comes."""
    heard: list[Msg] = []

    async def take(message: Msg) -> None:
        heard.append(message)

    await client.subscribe(subject, queue=queue, cb=take)
    await settled(client)
    return heard


@asynccontextmanager
async def revoking(rig: Rig, nats_endpoint: NatsEndpoint) -> AsyncIterator[None]:
    """A router's watch over the rig's credentials, beside the block."""
    clock, signer = SystemClock(), nats_endpoint.identity.operator_signing
    async with (
        directory_news(rig.gateway.broker, rig.gateway.names) as news,
        anyio.create_task_group() as tasks,
    ):
        watch = CredentialWatch(
            book=DirectoryCredentials(rig.gateway.parts.store),
            revoker=AccountRevocations(nats_endpoint.sys_url, signer, clock),
            news=news,
            clock=clock,
        )
        tasks.start_soon(watch.run)
        yield
        tasks.cancel_scope.cancel()


async def until_closed(client: Client, *, within_s: float) -> None:
    with anyio.fail_after(within_s):
        while not client.is_closed:
            await anyio.sleep(0.01)


def tampered(jwt: str, **changes: Any) -> str:
    """The same signature under other claims of the user."""
    header, payload, signature = jwt.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    claims["nats"] |= changes
    changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"{header}.{changed}.{signature}"
