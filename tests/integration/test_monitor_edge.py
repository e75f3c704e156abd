"""The subscription to pushes: what it hears, what it drops, and what it does when the broker says no or goes away."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import structlog.testing

from contracts.records import Echo, Envelope, JsonObject
from infra.broker_url import broker_url
from infra.clock import SystemIds
from infra.edge import EdgeFeed, parse_envelope
from infra.embedded import EmbeddedNats, NatsEndpoint
from tests.raw_broker import raw_client

DEADLINE_S = 20


@dataclass
class Heard:
    envelopes: list[Envelope] = field(default_factory=list)
    subscribed: int = 0

    def note(self) -> None:
        self.subscribed += 1

    async def until(self, *, subscribed: int = 0, envelopes: int = 0) -> None:
        with anyio.fail_after(DEADLINE_S):
            while self.subscribed < subscribed or len(self.envelopes) < envelopes:
                await anyio.sleep(0.02)


@asynccontextmanager
async def following(url: str, *subjects: str) -> AsyncIterator[Heard]:
    heard = Heard()
    feed = EdgeFeed(url, name="test", retry_s=0.1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.follow, subjects, heard.envelopes.append, heard.note)
        yield heard
        tasks.cancel_scope.cancel()


def envelope(agent_id: object, **changes: Any) -> JsonObject:
    facts: JsonObject = {"v": 1, "channel": "bg", "agent_id": agent_id, "execution_id": "exec_1", "message_id": "msg_1"}
    return facts | {"sent_at": "2026-05-01T12:00:00Z", "nonce": None, "claim_before": None} | changes


async def publish(endpoint: NatsEndpoint, subject: str, *payloads: bytes) -> None:
    client = await raw_client(endpoint.url)
    for payload in payloads:
        await client.publish(subject, payload)
    await client.flush()
    await client.close()


@pytest.fixture
def agent_id() -> str:
    return SystemIds().agent()


async def test_a_push_is_heard_and_what_is_not_one_is_dropped(nats_server: NatsEndpoint, agent_id: str) -> None:
    good = json.dumps(envelope(agent_id, field_of_the_future=1)).encode()
    bad = [b"", b"\xff", b"{}", b"x" * 20_000, json.dumps(envelope(agent_id, v=2)).encode()]
    async with following(nats_server.edge_url, f"bg.{agent_id}.>") as heard:
        await heard.until(subscribed=1)
        await publish(nats_server, f"bg.{agent_id}.exec_1", *bad, good)
        await heard.until(envelopes=1)
    assert [found.execution_id for found in heard.envelopes] == ["exec_1"]


async def test_echoes_are_told_apart_from_pushes_and_from_what_is_neither(
    nats_server: NatsEndpoint, agent_id: str
) -> None:
    echoes: list[Echo] = []
    good = json.dumps({"v": 1, "kind": "echo", "agent_id": agent_id, "echo_id": "echo_1", "new": 1}).encode()
    feed = EdgeFeed(nats_server.edge_url, name="test")
    heard = Heard()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.follow, [f"live.{agent_id}.>"], heard.envelopes.append, heard.note, echoes.append)
        await heard.until(subscribed=1)
        await publish(nats_server, f"live.{agent_id}.echo_1", b"{}", json.dumps(envelope(agent_id)).encode(), good)
        await publish(nats_server, f"live.{agent_id}.exec_1", good, json.dumps(envelope(agent_id)).encode())
        await heard.until(envelopes=1)
        tasks.cancel_scope.cancel()
    assert [each.echo_id for each in echoes] == ["echo_1"]
    assert [each.execution_id for each in heard.envelopes] == ["exec_1"]


@pytest.mark.parametrize(
    "changes", [{"channel": "fax"}, {"sent_at": "yesterday"}, {"execution_id": None}, {"sent_at": 5e300}]
)
def test_an_envelope_of_another_shape_is_none(changes: JsonObject) -> None:
    assert parse_envelope(json.dumps(envelope("agent_1", **changes)).encode()) is None
    assert parse_envelope(json.dumps(envelope(5)).encode()) is None


async def test_a_refused_subject_is_told_and_never_called_subscribed(nats_server: NatsEndpoint, agent_id: str) -> None:
    with structlog.testing.capture_logs() as logs:
        async with following(nats_server.edge_url, f"bg.{agent_id}.>", "led.>") as heard:
            with anyio.fail_after(DEADLINE_S):
                while not any(line["event"] == "edge_subscription_refused" for line in logs):
                    await anyio.sleep(0.02)
    assert heard.subscribed == 0


async def test_it_comes_back_after_every_restart_and_says_that_something_may_be_missed(
    own_nats: EmbeddedNats, agent_id: str
) -> None:
    push = json.dumps(envelope(agent_id)).encode()
    async with following(own_nats.endpoint.edge_url, f"bg.{agent_id}.>") as heard:
        for round_number in (1, 2, 3):
            await heard.until(subscribed=round_number)
            with anyio.fail_after(DEADLINE_S):
                while len(heard.envelopes) < round_number:
                    await publish(own_nats.endpoint, f"bg.{agent_id}.exec_1", push)
                    await anyio.sleep(0.05)
            del heard.envelopes[round_number:]
            own_nats.kill()
            await own_nats.start()


async def test_a_broker_that_is_away_at_the_start_is_waited_for(own_nats: EmbeddedNats, agent_id: str) -> None:
    url = own_nats.endpoint.edge_url
    own_nats.kill()
    async with following(url, f"bg.{agent_id}.>") as heard:
        await anyio.lowlevel.checkpoint()
        await own_nats.start()
        await heard.until(subscribed=1)


async def test_a_creds_file_that_is_being_renewed_is_read_again(nats_server: NatsEndpoint, tmp_path: Path) -> None:
    creds = tmp_path / "edge.creds"
    creds.write_text("half written")
    url = broker_url(f"nats://127.0.0.1:{nats_server.port}", creds=creds)
    with structlog.testing.capture_logs() as logs:
        async with following(url, "bg.agent_x.>") as heard:
            with anyio.fail_after(DEADLINE_S):
                while not any(entry["event"] == "edge_unreachable" for entry in logs):
                    await anyio.sleep(0.02)
            creds.write_text(nats_server.identity.creds_path("EDGE").read_text())
            await heard.until(subscribed=1)
    assert "half written" not in repr(logs)
