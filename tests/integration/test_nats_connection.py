"""The supervised connection: round trips, subscriptions that outlive a client, and errors of our own only."""

import json
from pathlib import Path

import anyio
import pytest

from contracts.errors import Unavailable
from infra.binaries import nats_server_binary
from infra.broker_url import BadBrokerUrl, broker_url
from infra.clock import SystemClock
from infra.embedded import EmbeddedNats, NatsEndpoint
from infra.nats_connection import Broker, NoAnswer, Patience
from infra.nats_identity import CORE, EDGE, installation_identity
from infra.nats_jwt import Creds, User, user_jwt
from infra.nats_keys import Kind, NatsKey
from tests.nats_streams import connected, until


async def test_an_echo_proves_the_round_trip(nats_server: NatsEndpoint) -> None:
    async with connected(nats_server.url) as broker:
        await broker.echo(2.0)


async def test_an_echo_on_a_given_subject_needs_no_inbox(nats_server: NatsEndpoint, prefix: str) -> None:
    async with Broker.open(nats_server.url, name="test", replies=False) as broker:
        await broker.echo(2.0, subject=f"{prefix}.echo")


async def test_no_broker_is_told_within_the_patience_given() -> None:
    with anyio.fail_after(5):
        with pytest.raises(Unavailable) as caught:
            async with Broker.open("nats://127.0.0.1:1", name="test", patience=Patience(first_connect_s=0.3)):
                pytest.fail("there is no such broker")
    assert caught.value.code == "broker_unavailable"


async def test_a_wrong_password_is_told_without_showing_it(nats_server: NatsEndpoint) -> None:
    url = f"nats://core:wrong-secret@127.0.0.1:{nats_server.port}"
    with pytest.raises(Unavailable, match="Authorization") as caught:
        async with Broker.open(url, name="test", patience=Patience(first_connect_s=0.3)):
            pytest.fail("the password is wrong")
    assert "wrong-secret" not in str(caught.value)


async def test_who_is_unknown_to_the_operator_is_refused(nats_server: NatsEndpoint, tmp_path: Path) -> None:
    stranger = installation_identity(tmp_path / "identity", SystemClock().now())
    url = broker_url(f"nats://127.0.0.1:{nats_server.port}", creds=stranger.creds_path(CORE))
    with pytest.raises(Unavailable, match="Authorization"):
        async with Broker.open(url, name="test", patience=Patience(first_connect_s=2)):
            pytest.fail("these credentials are another installation's")


@pytest.mark.parametrize(("text", "reason"), [(None, "No such file"), ("hush", "is not one")])
async def test_a_creds_file_that_cannot_be_read_ends_the_start_at_once(
    nats_server: NatsEndpoint, tmp_path: Path, text: str | None, reason: str
) -> None:
    file = tmp_path / "core.creds"
    if text is not None:
        file.write_text(text)
    with anyio.fail_after(1), pytest.raises(BadBrokerUrl, match=rf"core\.creds.*{reason}") as caught:
        async with Broker.open(broker_url(f"nats://127.0.0.1:{nats_server.port}", creds=file), name="test"):
            pytest.fail("there are no credentials")
    assert "hush" not in str(caught.value)


async def test_credentials_are_read_anew_for_each_connection(own_nats: EmbeddedNats, tmp_path: Path) -> None:
    file = tmp_path / "renewed.creds"
    file.write_bytes(own_nats.identity.creds_path(CORE).read_bytes())
    async with connected(broker_url(f"nats://127.0.0.1:{own_nats.port}", creds=file)) as broker:
        file.write_text("half written")
        own_nats.kill()
        await own_nats.start()
        assert not broker.is_up
        file.write_bytes(own_nats.identity.creds_path(CORE).read_bytes())
        await broker.wait_up(5)
        await broker.echo()


async def test_credentials_may_come_from_memory(nats_server: NatsEndpoint, prefix: str) -> None:
    keys, user = nats_server.identity.account(EDGE), NatsKey.fresh(Kind.USER)
    claims = User(public=user.public, name="m", account=keys.public, subscribe=[], publish=[f"hb.{prefix}"])
    creds = Creds(jwt=user_jwt(keys.signing, claims, SystemClock().now()), key=user)
    heard: list[bytes] = []
    async with connected(nats_server.url) as core:
        await core.subscribe("hb.>", lambda message: heard.append(message.data))
        await core.echo()
        url = f"nats://127.0.0.1:{nats_server.port}"
        async with Broker.open(url, name="test", replies=False, credentials=lambda: creds) as edge:
            await edge.publish(f"hb.{prefix}", b"alive")
            await until(lambda: b"alive" in heard)


async def test_a_user_and_a_password_do_for_a_broker_run_otherwise(tmp_path: Path) -> None:
    config = tmp_path / "static.conf"
    config.write_text('listen: "127.0.0.1:-1"\nauthorization { user: core, password: pw }\n')
    argv = [str(nats_server_binary()), "-c", str(config), "--ports_file_dir", str(tmp_path)]
    async with await anyio.open_process(argv, stderr=None) as server:
        ports = tmp_path / f"nats-server_{server.pid}.ports"
        await until(lambda: ports.exists() and ports.read_text().endswith("}"))
        address = json.loads(ports.read_text())["nats"][0].removeprefix("nats://")
        async with connected(f"nats://core:pw@{address}") as broker:
            await broker.echo()
        server.terminate()


async def test_the_error_of_the_block_leaves_as_it_is(nats_server: NatsEndpoint) -> None:
    with pytest.raises(KeyError):
        async with connected(nats_server.url):
            raise KeyError("mine")


async def test_a_subscription_hears_until_it_is_given_up(nats_server: NatsEndpoint, prefix: str) -> None:
    heard: list[bytes] = []
    async with connected(nats_server.url) as broker:
        subscription = await broker.subscribe(f"{prefix}.x", lambda message: heard.append(message.data))
        await broker.publish(f"{prefix}.x", b"one")
        await broker.echo()
        await until(lambda: heard == [b"one"])
        await broker.unsubscribe(subscription)
        await broker.publish(f"{prefix}.x", b"two")
        await broker.echo()
    assert heard == [b"one"]


async def test_an_unanswered_request_says_so(nats_server: NatsEndpoint, prefix: str) -> None:
    async with connected(nats_server.url) as broker:
        await broker.subscribe(f"{prefix}.silent", lambda _: None)
        with pytest.raises(NoAnswer):
            await broker.request(f"{prefix}.silent", timeout_s=0.1)


async def test_a_request_to_nobody_fails_at_once(nats_server: NatsEndpoint, prefix: str) -> None:
    async with connected(nats_server.url) as broker:
        with anyio.fail_after(1), pytest.raises(Unavailable, match="nobody answers"):
            await broker.request(f"{prefix}.nobody", timeout_s=5.0)


async def test_a_refused_subject_is_reported(nats_server: NatsEndpoint, prefix: str) -> None:
    violations: list[str] = []
    async with Broker.open(nats_server.edge_url, name="test", replies=False, on_violation=violations.append) as broker:
        await broker.publish(f"{prefix}.forbidden")
        await until(lambda: any(prefix in words for words in violations))
        assert broker.is_up


async def test_a_bad_subject_is_our_error(nats_server: NatsEndpoint) -> None:
    async with connected(nats_server.url) as broker:
        with pytest.raises(Unavailable):
            await broker.publish("two words")
