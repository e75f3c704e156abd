"""A monitor that means harm, on the real broker with a credential the gateway minted: what it tries, and gets nowhere.

Everything goes by nats-py's own client. A witness in account CORE hears whatever arrives there, streams' subjects too.
"""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry

from contracts.heartbeats import Pulse, render_beats
from contracts.subjects import heartbeat
from infra.clock import SystemIds
from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.first_answer import nats_answers
from infra.nats_jwt import Creds, User, user_jwt
from infra.nats_keys import Kind, NatsKey
from router.heartbeat_collector import HeartbeatCollector, HeartbeatMetrics
from router.heartbeats import Beats, read_beats
from tests.http_rig import Rig, code_of, running_rig
from tests.minted_monitors import Minted, connect, mint, overhear, revoking, settled, tampered, until_closed
from tests.raw_broker import raw_client

LOOT = b"forged by a monitor"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Two owners' agents and a monitor of each; eve's is the hostile one. `core` is our programs' own user."""

    rig: Rig
    nats: NatsEndpoint
    eve: Minted
    max: Minted
    mine: str
    theirs: str
    core: Client

    def named(self, pattern: str) -> str:
        ids = {"mine": self.mine, "theirs": self.theirs, "me": self.eve.monitor_id, "them": self.max.monitor_id}
        return pattern.format(**ids)

    async def push(self, agent_id: str, payload: bytes = b"a push") -> None:
        for channel in ("live", "bg", "inbox", "webhook"):
            await self.core.publish(f"{channel}.{agent_id}.exec_1", payload)
        await settled(self.core)


@pytest.fixture
async def scene(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Scene]:
    async with running_rig(nats_server, redis_server, prefix) as rig:
        mine, theirs = await rig.eve.agent("hers", "live", "bg"), await rig.max.agent("his", "live", "bg")
        name = uuid.uuid4().hex[:12]
        core = await raw_client(nats_server.url)
        yield Scene(
            rig=rig,
            nats=nats_server,
            eve=await mint(nats_server, rig.eve, f"eve-{name}", mine["id"]),
            max=await mint(nats_server, rig.max, f"max-{name}", theirs["id"]),
            mine=mine["id"],
            theirs=theirs["id"],
            core=core,
        )
        await core.close()


@asynccontextmanager
async def witness(scene: Scene) -> AsyncIterator[list[bytes]]:
    """The payloads of everything that reaches account CORE, or the victim's own connection, and is loot."""
    watcher = await raw_client(scene.nats.url)
    seen: list[bytes] = []

    async def note(message: Msg) -> None:
        if LOOT in message.data:
            seen.append(message.data)

    await watcher.subscribe(">", cb=note)
    await settled(watcher)
    async with scene.max.connected() as victim:
        for subject in scene.max.view["subjects"]:
            await victim.subscribe(subject, cb=note)
        await settled(victim)
        yield seen
        await scene.push(scene.theirs)
        await settled(victim)
        await settled(watcher)
    await watcher.close()


def refusals(scene: Scene, what: str) -> int:
    return sum(f"permissions violation for {what}" in each for each in scene.eve.errors)


# --- hearing -------------------------------------------------------------------------------------------------------

FORBIDDEN_TO_HEAR = [
    ">",
    "*",
    "*.>",
    "live.>",
    "bg.>",
    "live.*.>",
    "live.*.x",
    "*.{mine}.>",
    "live.{theirs}.>",
    "live.{theirs}.exec_1",
    "bg.{theirs}.>",
    "inbox.{theirs}.>",
    "webhook.{theirs}.>",
    "hb.>",
    "hb.{them}",
    "hb.{me}",
    "led.>",
    "ev.>",
    "ctl.>",
    "_INBOX.>",
    "_INBOX.*",
    "_R_.>",
    "$JS.>",
    "$JS.API.>",
    "$JS.EVENT.>",
    "$JS.ACK.>",
    "$KV.>",
    "$SYS.>",
    "$SYS.ACCOUNT.*.CONNECT",
    "$SRV.>",
]


@pytest.mark.parametrize("queue", ["", "workers"])
async def test_it_hears_its_own_agents_pushes_and_nothing_else(scene: Scene, queue: str) -> None:
    for pattern in FORBIDDEN_TO_HEAR:
        scene.eve.errors.clear()
        async with scene.eve.connected() as hostile:
            heard = await overhear(hostile, scene.named(pattern), queue)
            own = await overhear(hostile, f"live.{scene.mine}.>")
            await scene.push(scene.theirs)
            await scene.core.publish(heartbeat(scene.max.monitor_id), b"a beat")
            await scene.core.publish("_INBOX.somebody.else", b"an answer")
            await scene.push(scene.mine)
            await settled(hostile)
            assert refusals(scene, "subscription") == 1, (pattern, scene.eve.errors)
            assert (len(heard), len(own)) == (0, 1), pattern


async def test_more_subscriptions_than_its_agents_need_are_refused(scene: Scene) -> None:
    async with scene.eve.connected() as hostile:
        heard = [await overhear(hostile, f"live.{scene.mine}.{number}") for number in range(4)]
        await hostile.subscribe(f"live.{scene.mine}.more")
        await until_closed(hostile, within_s=5)
        await scene.push(scene.mine)
    assert "maximum subscriptions exceeded" in str(hostile.last_error)
    assert heard == [[], [], [], []]


# --- speaking ------------------------------------------------------------------------------------------------------

FORBIDDEN_TO_SAY = [
    "live.{mine}.exec_1",
    "bg.{mine}.exec_1",
    "inbox.{mine}.exec_1",
    "webhook.{mine}.exec_1",
    "live.{theirs}.exec_1",
    "bg.{theirs}.exec_1",
    "live.{theirs}.echo_1",
    "hb.{them}",
    "hb.{me}.more",
    "hb",
    "led.01k5z3w8p2c4d6f8h0j2m4n6q8",
    "ev.max.1",
    "ctl.directory",
    "$KV.DIRECTORY.owner.eve",
    "$JS.API.INFO",
    "$JS.API.STREAM.PURGE.LEDGER",
    "$JS.API.STREAM.MSG.GET.LEDGER",
    "$JS.API.CONSUMER.MSG.NEXT.LEDGER.x",
    "$JS.ACK.LEDGER.x.1.1.1.1.1",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.CLAIMS.UPDATE",
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "$SRV.PING",
    "_INBOX.somebody.else",
    "x",
]


async def test_it_says_nothing_but_its_own_beats(scene: Scene) -> None:
    async with witness(scene) as seen:
        for pattern in FORBIDDEN_TO_SAY:
            scene.eve.errors.clear()
            async with scene.eve.connected() as hostile:
                await hostile.publish(scene.named(pattern), LOOT)
                await settled(hostile)
                assert refusals(scene, "publish") == 1, (pattern, scene.eve.errors)
        async with scene.eve.connected() as hostile:
            await hostile.publish(heartbeat(scene.eve.monitor_id), LOOT + b": its own beat")
            await settled(hostile)
    assert seen == [LOOT + b": its own beat"]


@pytest.mark.parametrize("reply", ["_INBOX.somebody.else", "live.{theirs}.exec_1", "$JS.API.STREAM.PURGE.LEDGER"])
async def test_a_reply_subject_on_its_beats_brings_nobody_an_answer(scene: Scene, reply: str) -> None:
    """The confused deputy: a program of ours that answered would speak for it."""
    async with witness(scene) as seen, scene.eve.connected() as hostile:
        collector = HeartbeatCollector(
            notes=Nobody(),
            secret=scene.rig.gateway.parts.beat_secret,
            clock=scene.rig.gateway.parts.clock,
            metrics=HeartbeatMetrics(CollectorRegistry()),
        )
        answers = await overhear(scene.core, "_INBOX.somebody.else")
        await scene.rig.gateway.broker.take_all(heartbeat(scene.eve.monitor_id), collector.hear)
        await scene.rig.gateway.broker.echo()
        await hostile.publish(heartbeat(scene.eve.monitor_id), LOOT, reply=scene.named(reply))
        await settled(hostile)
        await collector.flush()
    assert seen == [LOOT]
    assert answers == []


class Nobody:
    """Notes that must never be taken."""

    async def note(self, seen: object, held: object) -> None:
        raise AssertionError("nothing here was proved")

    async def end(self, monitor_id: str) -> list[str]:
        raise AssertionError("nobody ended")


async def test_headers_make_a_beat_no_command_to_a_stream(scene: Scene) -> None:
    headers = {"Nats-Msg-Id": "1", "Nats-Rollup": "all", "Nats-Schedule": "@at 2020-01-01T00:00:00Z"}
    async with witness(scene) as seen, scene.eve.connected() as hostile:
        await hostile.publish(f"live.{scene.theirs}.exec_1", LOOT, headers=headers)
        await hostile.publish("led.01k5z3w8p2c4d6f8h0j2m4n6q8", LOOT, headers=headers)
        await settled(hostile)
        assert refusals(scene, "publish") == 2
    assert seen == []


async def test_a_beat_beyond_the_payload_it_is_allowed_ends_the_connection(scene: Scene) -> None:
    async with witness(scene) as seen, scene.eve.connected() as hostile:
        await hostile.publish(heartbeat(scene.eve.monitor_id), LOOT + b"x" * 64 * 1024)
        await until_closed(hostile, within_s=5)
    assert seen == []
    assert "maximum payload" in str(hostile.last_error).lower()


# --- credentials ---------------------------------------------------------------------------------------------------


def forged(scene: Scene, signer: NatsKey, key: NatsKey, account: str) -> Creds:
    """Everything a monitor could wish for, signed by whoever."""
    now = datetime.now(UTC)
    user = User(public=key.public, name="monitor x", account=account, expires_at=now + timedelta(minutes=5))
    return Creds(jwt=user_jwt(signer, user, now), key=key)


async def is_let_in(scene: Scene, creds: Creds) -> bool:
    return await nats_answers("127.0.0.1", scene.nats.port, creds)


async def test_a_credential_signed_by_a_key_of_its_own_is_none(scene: Scene) -> None:
    own, edge, core = (
        NatsKey.fresh(Kind.ACCOUNT),
        scene.nats.identity.account("EDGE"),
        scene.nats.identity.account("CORE"),
    )
    key = NatsKey.fresh(Kind.USER)
    for account in (edge.public, core.public, own.public):
        assert not await is_let_in(scene, forged(scene, own, key, account))
    # The gateway's key makes users of EDGE and of no other account, and the account's identity none at all.
    assert not await is_let_in(scene, forged(scene, edge.signing, key, core.public))
    assert not await is_let_in(scene, forged(scene, edge.identity, key, edge.public))
    assert await is_let_in(scene, forged(scene, edge.signing, key, edge.public))


@pytest.mark.parametrize(
    "changes", [{"sub": {}}, {"pub": {}}, {"subs": -1}, {"payload": -1}, {"issuer_account": "A" * 56}, {}]
)
async def test_a_tampered_credential_is_none(scene: Scene, changes: dict[str, object]) -> None:
    jwt = tampered(scene.eve.jwt, **changes) if changes else scene.eve.jwt[:-4] + "AAAA"
    assert not await is_let_in(scene, Creds(jwt=jwt, key=scene.eve.key))
    assert await scene.eve.is_let_in()


async def test_somebody_elses_credential_is_of_no_use_without_the_key(scene: Scene) -> None:
    assert not await is_let_in(scene, Creds(jwt=scene.max.jwt, key=scene.eve.key))


async def test_an_expired_credential_lets_nobody_in_and_ends_the_connection_it_made(scene: Scene) -> None:
    edge, key, now = scene.nats.identity.account("EDGE"), NatsKey.fresh(Kind.USER), datetime.now(UTC)

    def lasting(seconds: float) -> Creds:
        user = User(
            public=key.public, name="monitor x", account=edge.public, expires_at=now + timedelta(seconds=seconds)
        )
        return Creds(jwt=user_jwt(edge.signing, user, now), key=key)

    assert not await is_let_in(scene, lasting(-1))
    client = await connect(scene.nats, lasting(3))
    await until_closed(client, within_s=6)
    with anyio.fail_after(3):
        # The very second of its end still counts.
        while await is_let_in(scene, lasting(3)):
            await anyio.sleep(0.1)


async def test_a_revoked_one_is_put_out_and_comes_back_no_more(scene: Scene) -> None:
    async with revoking(scene.rig, scene.nats), scene.eve.connected() as hostile:
        heard = await overhear(hostile, f"live.{scene.mine}.>")
        await scene.rig.eve.delete(f"/v1/keys/{scene.rig.eve.key_id}", status=204)
        await until_closed(hostile, within_s=5)
        for _ in range(3):
            assert not await scene.eve.is_let_in()
        await scene.push(scene.mine)
        body = {"monitor_id": scene.eve.monitor_id, "public_key": scene.eve.key.public, "agents": [scene.mine]}
        assert (await scene.rig.eve.call("POST", "/v1/monitors/credentials", json=body)).status_code == 401
    assert heard == []
    assert await scene.max.is_let_in()


# --- over HTTPS ----------------------------------------------------------------------------------------------------


async def test_a_push_it_made_up_or_heard_twice_opens_nothing(scene: Scene) -> None:
    """Inside EDGE no push can be made; and what a session believes is checked by the claim."""
    session = await scene.rig.max.session("his", attestation="token+nonce")
    async with scene.max.connected() as monitor:
        pushed = await overhear(monitor, f"live.{scene.theirs}.>")
        first = await scene.rig.max.send("his", delivery_mode="live")
        second = await scene.rig.max.send("his", delivery_mode="live")
        await settled(monitor)
    nonces = {each["execution_id"]: each["nonce"] for each in map(json.loads, (message.data for message in pushed))}

    async def claim(execution_id: str, nonce: str, token: str = session["session_token"]) -> int:
        body = {"session_token": token, "nonce": nonce}
        return (await scene.rig.max.call("POST", f"/v1/executions/{execution_id}/live-claim", json=body)).status_code

    one, two = first["execution_id"], second["execution_id"]
    assert await claim(one, "made-up") == 403
    assert await claim(two, nonces[one]) == 403
    assert await claim(one, nonces[one], token="made-up") == 403
    assert await claim(one, nonces[one]) == 200
    assert await claim(two, nonces[two]) == 200


async def test_a_stolen_session_token_is_of_no_use_to_another_owners_key(scene: Scene) -> None:
    session = await scene.rig.max.session("his")
    sent = await scene.rig.max.send("his", delivery_mode="live")
    path, body = f"/v1/executions/{sent['execution_id']}/live-claim", {"session_token": session["session_token"]}
    foreign = await scene.rig.eve.call("POST", path, json=body)
    absent = await scene.rig.eve.call("POST", f"/v1/executions/exec_{SystemIds().ulid()}/live-claim", json=body)
    assert (foreign.status_code, code_of(foreign)) == (absent.status_code, code_of(absent))
    assert foreign.status_code == 404
    assert (await scene.rig.max.call("POST", path, json=body)).status_code == 200


async def test_beats_for_somebody_elses_sessions_count_for_nothing(scene: Scene) -> None:
    session = await scene.rig.max.session("his", monitor_id=scene.max.monitor_id)
    secret = scene.rig.gateway.parts.beat_secret
    # The very proof that max was given: on eve's subject it proves nothing, and on max's she cannot speak.
    pulse = Pulse(session_id=session["id"], proof=session["beat_proof"], age_s=0)
    [message] = render_beats([pulse])
    heard: list[tuple[str, bytes]] = []
    await scene.rig.gateway.broker.take_all("hb.>", lambda *said: heard.append(said))
    await scene.rig.gateway.broker.echo()
    async with scene.eve.connected() as hostile:
        await hostile.publish(heartbeat(scene.max.monitor_id), message)
        await hostile.publish(heartbeat(scene.eve.monitor_id), message)
        await settled(hostile)
    await scene.rig.gateway.broker.echo()
    assert [each for each in heard if each[1] == message] == [(heartbeat(scene.eve.monitor_id), message)]
    assert read_beats(heartbeat(scene.eve.monitor_id), message, secret, 1_000) == Beats(
        monitor_id=scene.eve.monitor_id, part=0, seen={}, forged=1
    )
    proved = read_beats(heartbeat(scene.max.monitor_id), message, secret, 1_000)
    assert isinstance(proved, Beats)
    assert proved.seen == {session["id"]: 1_000}
    beat = {"sessions": [{"session_id": session["id"]}]}
    told = await scene.rig.eve.post("/v1/sessions/heartbeat", beat)
    assert told["sessions"][0]["status"] == "unknown"
