"""The embedded servers: what they answer, what they refuse, and what survives a crash."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import nats
import psutil
import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.js.errors import ServiceUnavailableError
from redis.asyncio import Redis

from infra.binaries import nats_server_binary
from infra.clock import SystemClock
from infra.embedded import EmbeddedNats, EmbeddedRedis, NatsEndpoint, RedisEndpoint
from infra.embedded_errors import BinaryMissing, DataInUse, EmbeddedError, PortTaken, StartFailed
from infra.first_answer import nats_answers
from infra.nats_client import login
from infra.nats_jwt import EVERYBODY, Account, Creds, Import, User, account_jwt, read_creds, revoking, user_jwt
from infra.nats_keys import Kind, NatsKey
from tests.raw_broker import raw_client

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def connected(url: str, *, errors: list[str] | None = None) -> AsyncIterator[Client]:
    async def remember(error: Exception) -> None:
        if errors is not None:
            errors.append(str(error))

    client = await raw_client(url, error_cb=remember, allow_reconnect=False)
    try:
        yield client
    finally:
        await client.close()


async def settled(client: Client) -> None:
    """Until the server has read what was said. Twice, for nats-py's first ping may overtake what is still held back."""
    for _ in range(2):
        await client.flush()


async def until(true: Callable[[], bool], *, within_s: float = 5.0) -> None:
    with anyio.fail_after(within_s):
        while not true():
            await anyio.sleep(0.02)


async def test_nats_says_that_it_syncs_always(nats_server: NatsEndpoint) -> None:
    async with connected(nats_server.sys_url) as client:
        answer = json.loads((await client.request("$SYS.REQ.SERVER.PING.JSZ", b"")).data)
    assert answer["data"]["config"]["sync_always"] is True


async def test_redis_appends_without_waiting_for_the_disk_and_never_evicts(redis_server: RedisEndpoint) -> None:
    async with Redis.from_url(redis_server.url, decode_responses=True) as client:
        settings = await client.config_get("append*", "maxmemory-policy", "bind")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "no"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["bind"] == "127.0.0.1"


async def test_nats_keeps_port_and_data_over_a_crash(own_nats: EmbeddedNats, prefix: str) -> None:
    before = own_nats.endpoint
    async with connected(before.url) as client:
        stream = client.jetstream()
        await stream.add_stream(name=prefix, subjects=[f"{prefix}.>"])
        await stream.publish(f"{prefix}.a", b"kept")
    own_nats.kill()
    after = await own_nats.start()
    async with connected(after.url) as client:
        kept = await client.jetstream().get_msg(prefix, 1)
    assert kept.data == b"kept"
    assert after.pid != before.pid
    assert after.url == before.url


async def test_redis_keeps_port_and_data_over_a_crash(own_redis: EmbeddedRedis) -> None:
    before = own_redis.endpoint
    async with Redis.from_url(before.url) as client:
        await client.set("k", "kept")
    own_redis.kill()
    after = await own_redis.start()
    async with Redis.from_url(after.url) as client:
        assert await client.get("k") == b"kept"
    assert after.pid != before.pid
    assert after.url == before.url


async def test_a_paused_server_stops_within_its_grace(own_redis: EmbeddedRedis) -> None:
    pid = own_redis.pid
    own_redis.pause()
    await own_redis.stop()
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("kind", [EmbeddedNats, EmbeddedRedis])
async def test_a_taken_port_is_named_with_its_setting(
    kind: type[EmbeddedNats] | type[EmbeddedRedis], tmp_path: Path, nats_server: NatsEndpoint
) -> None:
    server = kind(data_dir=tmp_path, port=nats_server.port, port_setting="SOME_PORT")
    with pytest.raises(PortTaken, match=rf"port {nats_server.port} is taken .* set SOME_PORT"):
        await server.start()


async def test_a_second_server_on_the_same_data_is_refused(
    own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.embedded.LOCK_PATIENCE_S", 0.1)
    with pytest.raises(DataInUse):
        await EmbeddedRedis(data_dir=own_redis.data_dir).start()


async def test_a_server_that_dies_at_its_start_leaves_its_last_words(tmp_path: Path) -> None:
    config = tmp_path / "bad.conf"
    config.write_text("no_such_setting: 1\n")
    with pytest.raises(StartFailed, match="no_such_setting"):
        await EmbeddedNats(data_dir=tmp_path / "data", config=config).start()


async def test_a_missing_binary_is_named(tmp_path: Path) -> None:
    with pytest.raises(BinaryMissing, match="nowhere/nats-server"):
        await EmbeddedNats(data_dir=tmp_path, binary=Path("nowhere/nats-server")).start()


async def test_secrets_are_not_on_the_command_line(own_nats: EmbeddedNats, own_redis: EmbeddedRedis) -> None:
    lines = " ".join(psutil.Process(own_nats.pid).cmdline() + psutil.Process(own_redis.pid).cmdline())
    assert own_redis.password() not in lines
    assert own_nats.identity.key("core").seed not in lines


STARTER = """\
import asyncio, sys
from pathlib import Path
from infra.embedded import EmbeddedNats, EmbeddedRedis

async def main():
    for server in (EmbeddedNats(data_dir=Path("n")), EmbeddedRedis(data_dir=Path("r"))):
        print((await server.start()).pid, flush=True)
    await asyncio.sleep(100)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_a_killed_parent_leaves_no_servers_behind(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    async with await anyio.open_process([sys.executable, "-c", STARTER], cwd=tmp_path, env=environment) as parent:
        assert parent.stdout is not None
        said = b""
        with anyio.fail_after(20):
            while said.count(b"\n") < 2:
                said += await parent.stdout.receive()
        children = [psutil.Process(int(pid)) for pid in said.split()]
        parent.send_signal(signal.SIGKILL)
        await until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))


async def test_pushes_from_core_reach_the_edge_and_heartbeats_come_back(nats_server: NatsEndpoint, prefix: str) -> None:
    async with connected(nats_server.url) as core, connected(nats_server.edge_url) as edge:
        pushes = [await edge.subscribe(f"{kind}.{prefix}.>") for kind in ("live", "bg", "inbox")]
        beats = await core.subscribe(f"hb.{prefix}")
        await settled(edge)
        await settled(core)
        for kind in ("live", "bg", "inbox"):
            await core.publish(f"{kind}.{prefix}.exec", kind.encode())
        await edge.publish(f"hb.{prefix}", b"alive")
        assert [(await push.next_msg(5)).data for push in pushes] == [b"live", b"bg", b"inbox"]
        assert (await beats.next_msg(5)).data == b"alive"


@pytest.mark.parametrize("subject", ["live.a.b", "led.x", "_INBOX.x", "$JS.API.INFO", "$SYS.REQ.SERVER.PING", "other"])
async def test_the_edge_may_publish_heartbeats_only(nats_server: NatsEndpoint, subject: str) -> None:
    errors: list[str] = []
    async with connected(nats_server.edge_url, errors=errors) as edge:
        await edge.publish(subject, b"")
        await until(lambda: bool(errors))
    assert "permissions violation for publish" in errors[0]


@pytest.mark.parametrize("subject", ["hb.>", "_INBOX.>", "$JS.EVENT.>", "$SYS.>", ">", "led.>"])
async def test_the_edge_may_subscribe_to_pushes_only(nats_server: NatsEndpoint, subject: str) -> None:
    errors: list[str] = []
    async with connected(nats_server.edge_url, errors=errors) as edge:
        await edge.subscribe(subject)
        await until(lambda: bool(errors))
    assert "permissions violation for subscription" in errors[0]


@asynccontextmanager
async def unconfined(endpoint: NatsEndpoint, account: str) -> AsyncIterator[Client]:
    """A user of the account whom no permissions confine: what stops it is the account's own."""
    keys, user = endpoint.identity.account(account), NatsKey.fresh(Kind.USER)
    claims = User(public=user.public, name="unconfined", account=keys.public)
    creds = Creds(jwt=user_jwt(keys.signing, claims, SystemClock().now()), key=user)
    client = await nats.connect(f"nats://127.0.0.1:{endpoint.port}", allow_reconnect=False, **login(creds, None))
    try:
        yield client
    finally:
        await client.close()


async def test_the_edge_account_has_no_jetstream_even_without_permissions(nats_server: NatsEndpoint) -> None:
    async with unconfined(nats_server, "EDGE") as edge:
        with pytest.raises(ServiceUnavailableError):
            await edge.jetstream().account_info()


async def test_of_core_the_edge_account_hears_pushes_alone(nats_server: NatsEndpoint, prefix: str) -> None:
    async with unconfined(nats_server, "EDGE") as edge, connected(nats_server.url) as core:
        heard = await edge.subscribe(">")
        await settled(edge)
        for subject in (f"led.{prefix}", f"moved.{prefix}", f"{prefix}.x", f"webhook.{prefix}.last"):
            await core.publish(subject, b"")
        async for message in heard.messages:
            assert prefix not in message.subject or message.subject == f"webhook.{prefix}.last"
            if prefix in message.subject:
                break


async def test_core_hears_heartbeats_of_the_edge_and_nothing_else(nats_server: NatsEndpoint, prefix: str) -> None:
    async with unconfined(nats_server, "EDGE") as edge, connected(nats_server.url) as core:
        heard = [await core.subscribe(subject) for subject in (f"live.{prefix}.>", f"led.{prefix}", f"hb.{prefix}")]
        await settled(core)
        for subject in (f"live.{prefix}.forged", f"led.{prefix}", f"hb.{prefix}"):
            await edge.publish(subject, subject.encode())
        assert (await heard[2].next_msg(5)).subject == f"hb.{prefix}"
        assert [each.pending_msgs for each in heard[:2]] == [0, 0]


async def test_a_message_of_the_edge_may_have_64_kib(nats_server: NatsEndpoint, prefix: str) -> None:
    async with unconfined(nats_server, "EDGE") as edge:
        heard = await edge.subscribe(prefix)
        await edge.publish(prefix, b"x" * 64 * 1024)
        await heard.next_msg(5)
        await edge.publish(prefix, b"x" * (64 * 1024 + 1))
        await until(lambda: edge.is_closed)
        assert "maximum payload" in str(edge.last_error).lower()


async def test_the_system_account_is_the_sys_user_s_alone(nats_server: NatsEndpoint) -> None:
    for account in ("CORE", "EDGE"):
        async with unconfined(nats_server, account) as client:
            with pytest.raises(NoRespondersError):
                await client.request("$SYS.REQ.SERVER.PING", b"", timeout=2)


async def test_who_is_signed_by_an_identity_instead_of_a_signing_key_is_refused(nats_server: NatsEndpoint) -> None:
    keys, user = nats_server.identity.account("EDGE"), NatsKey.fresh(Kind.USER)
    jwt = user_jwt(keys.identity, User(public=user.public, name="x", account=keys.public), SystemClock().now())
    assert not await nats_answers("127.0.0.1", nats_server.port, Creds(jwt=jwt, key=user))


async def test_another_account_of_the_operator_hears_no_pushes(own_nats: EmbeddedNats) -> None:
    """Exports are for whom they were signed for: an import without an activation brings nothing."""
    now, identity, endpoint = SystemClock().now(), own_nats.identity, own_nats.endpoint
    account, signing, user = (NatsKey.fresh(kind) for kind in (Kind.ACCOUNT, Kind.ACCOUNT, Kind.USER))
    pushes = Import(subject="live.>", account=identity.account("CORE").public)
    claims = Account(public=account.public, name="OTHER", signing_keys=[signing.public], imports=[pushes])
    jwt = user_jwt(signing, User(public=user.public, name="u", account=account.public), now)
    arguments: dict[str, Any] = login(Creds(jwt=jwt, key=user), None)
    async with connected(endpoint.sys_url) as sys_client:
        update = account_jwt(identity.operator_signing, claims, now)
        await sys_client.request("$SYS.REQ.CLAIMS.UPDATE", update.encode())
    other = await nats.connect(f"nats://127.0.0.1:{own_nats.port}", allow_reconnect=False, **arguments)
    async with connected(endpoint.url) as core, connected(endpoint.edge_url) as edge:
        heard = [await client.subscribe("live.>") for client in (other, edge)]
        await settled(other)
        await settled(edge)
        await core.publish("live.a.b", b"x")
        await heard[1].next_msg(5)
        await settled(other)
        assert heard[0].pending_msgs == 0
    await other.close()


async def test_a_revocation_closes_connections_and_outlives_the_broker(own_nats: EmbeddedNats) -> None:
    clock, identity = SystemClock(), own_nats.identity
    creds = read_creds(identity.creds_path("EDGE").read_text())
    edge_jwt = identity.jwt_dir / f"{identity.account('EDGE').public}.jwt"
    update = revoking(edge_jwt.read_text(), identity.operator_signing, {creds.key.public: clock.now()}, clock.now())
    async with connected(own_nats.endpoint.edge_url) as edge, connected(own_nats.endpoint.sys_url) as sys_client:
        answer = json.loads((await sys_client.request("$SYS.REQ.CLAIMS.UPDATE", update.encode())).data)
        assert answer["data"]["code"] == 200
        await until(lambda: edge.is_closed)
    assert not await nats_answers("127.0.0.1", own_nats.port, creds)
    own_nats.kill()
    await own_nats.start()
    assert not await nats_answers("127.0.0.1", own_nats.port, creds)


@pytest.mark.parametrize("who", ["stranger", "operator's identity"])
async def test_what_the_operator_s_signing_key_did_not_sign_revokes_nobody(own_nats: EmbeddedNats, who: str) -> None:
    now, identity = SystemClock().now(), own_nats.identity
    edge_jwt = identity.jwt_dir / f"{identity.account('EDGE').public}.jwt"
    signer = NatsKey.fresh(Kind.OPERATOR) if who == "stranger" else identity.key("operator")
    update = revoking(edge_jwt.read_text(), signer, {EVERYBODY: now}, now)
    async with connected(own_nats.endpoint.edge_url) as edge, connected(own_nats.endpoint.sys_url) as sys_client:
        await sys_client.request("$SYS.REQ.CLAIMS.UPDATE", update.encode())
        await settled(edge)
    assert await nats_answers("127.0.0.1", own_nats.port, read_creds(identity.creds_path("EDGE").read_text()))


OLD_CONFIG = """\
listen: "127.0.0.1:4222"
jetstream { sync_interval: always, store_dir: $STORE }
system_account: SYS
accounts {
  SYS { users = [ { user: sys, password: sys } ] }
  CORE { jetstream: enabled, users = [ { user: core, password: core } ] }
}
"""


async def write_in_a_static_account(store: Path, folder: Path, stream: str) -> None:
    """Three messages as an installation wrote them whose accounts stood in nats.conf."""
    config = folder / "old.conf"
    config.write_text(OLD_CONFIG.replace("$STORE", json.dumps(str(store))))
    argv = [str(nats_server_binary()), "-c", str(config), "-p", "-1", "--ports_file_dir", str(folder)]
    async with await anyio.open_process(argv, stderr=None) as old:
        ports = folder / f"nats-server_{old.pid}.ports"
        await until(lambda: ports.exists() and ports.read_text().endswith("}"))
        client = await nats.connect(json.loads(ports.read_text())["nats"][0], user="core", password="core")
        await client.jetstream().add_stream(name=stream, subjects=[f"{stream}.*"])
        for number in range(3):
            await client.jetstream().publish(f"{stream}.{number}", b"kept")
        await client.close()
        old.kill()


async def test_streams_of_an_installation_with_static_accounts_are_kept(tmp_path: Path, prefix: str) -> None:
    server = EmbeddedNats(data_dir=tmp_path / "data")
    await write_in_a_static_account(server.data_dir / "store", tmp_path, prefix)
    for _ in ("first start", "the next"):
        endpoint = await server.start()
        try:
            async with connected(endpoint.url) as client:
                messages = [await client.jetstream().get_msg(prefix, seq) for seq in (1, 2, 3)]
        finally:
            await server.stop()
        assert [message.data for message in messages] == [b"kept"] * 3


async def test_streams_are_not_left_behind_when_their_identity_is_lost(own_nats: EmbeddedNats, prefix: str) -> None:
    async with connected(own_nats.endpoint.url) as client:
        await client.jetstream().add_stream(name=prefix, subjects=[f"{prefix}.*"])
    await own_nats.stop()
    identity = own_nats.identity.folder
    identity.rename(identity.with_name("lost"))
    with pytest.raises(EmbeddedError, match="streams of another identity"):
        await EmbeddedNats(data_dir=own_nats.data_dir).start()
    assert not identity.exists(), "so that it can be put back as it was"
    identity.with_name("lost").rename(identity)
    async with connected((await own_nats.start()).url) as client:
        assert (await client.jetstream().stream_info(prefix)).config.name == prefix


async def test_two_sets_of_streams_are_for_a_person_to_choose_from(tmp_path: Path) -> None:
    server = EmbeddedNats(data_dir=tmp_path / "data")
    for account in ("CORE", server.identity.account("CORE").public):
        (server.data_dir / "store" / "jetstream" / account).mkdir(parents=True)
    with pytest.raises(EmbeddedError, match="both hold streams"):
        await server.start()


async def test_strangers_are_refused(nats_server: NatsEndpoint) -> None:
    async with await anyio.connect_tcp("127.0.0.1", nats_server.port) as stream:
        assert (await stream.receive()).startswith(b"INFO ")
        await stream.send(b"CONNECT {}\r\nPING\r\n")
        assert b"Authorization Violation" in await stream.receive()
