"""The supervised connection: round trips, subscriptions that outlive a client, and errors of our own only."""

import anyio
import pytest

from contracts.errors import Unavailable
from infra.embedded import NatsEndpoint
from infra.nats_connection import Broker, NoAnswer, Patience
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
