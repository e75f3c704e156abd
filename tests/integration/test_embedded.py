"""The embedded servers: what they answer, what they refuse, and what survives a crash."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import nats
import psutil
import pytest
from nats.aio.client import Client
from nats.js.errors import ServiceUnavailableError
from redis.asyncio import Redis

from infra.embedded import EmbeddedNats, EmbeddedRedis, NatsEndpoint, RedisEndpoint
from infra.embedded_errors import BinaryMissing, DataInUse, PortTaken, StartFailed

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def connected(url: str, *, errors: list[str] | None = None) -> AsyncIterator[Client]:
    async def remember(error: Exception) -> None:
        if errors is not None:
            errors.append(str(error))

    client = await nats.connect(url, error_cb=remember, allow_reconnect=False)
    try:
        yield client
    finally:
        await client.close()


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


async def test_passwords_are_for_the_owner_only_and_last(own_nats: EmbeddedNats) -> None:
    file = own_nats.data_dir / "nats-passwords.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert EmbeddedNats(data_dir=own_nats.data_dir).passwords() == own_nats.passwords()


async def test_passwords_are_not_on_the_command_line(own_nats: EmbeddedNats, own_redis: EmbeddedRedis) -> None:
    lines = " ".join(psutil.Process(own_nats.pid).cmdline() + psutil.Process(own_redis.pid).cmdline())
    assert own_redis.password() not in lines
    assert own_nats.passwords().core not in lines


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
        await edge.flush()
        await core.flush()
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


async def test_the_edge_account_has_no_jetstream_even_without_permissions(
    nats_server: NatsEndpoint, tmp_path: Path
) -> None:
    open_edge = tmp_path / "open.conf"
    text = (ROOT / "nats.conf").read_text()
    fence = text[text.index("permissions {") : text.index("limits {")].rsplit("}", 1)[0].rstrip()
    open_edge.write_text(text.replace(fence, ""))
    server = EmbeddedNats(data_dir=tmp_path / "data", config=open_edge)
    endpoint = await server.start()
    try:
        async with connected(endpoint.edge_url) as edge:
            with pytest.raises(ServiceUnavailableError):
                await edge.jetstream().account_info()
    finally:
        await server.stop()


async def test_strangers_are_refused(nats_server: NatsEndpoint) -> None:
    async with await anyio.connect_tcp("127.0.0.1", nats_server.port) as stream:
        assert (await stream.receive()).startswith(b"INFO ")
        await stream.send(b"CONNECT {}\r\nPING\r\n")
        assert b"Authorization Violation" in await stream.receive()
