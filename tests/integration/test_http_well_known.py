"""The well-known documents, and whether what the broker carries is what they describe."""

import json
from collections.abc import AsyncIterator

import jsonschema_rs
import pytest
from nats.aio.msg import Msg

from contracts.subject_patterns import families_of
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, running_rig
from tests.json_documents import payload_schema

INTERNAL = ("$JS.", "_INBOX.", "_R_.", "$SYS.")


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


async def test_the_service_says_what_it_is_and_where_the_rest_is(rig: Rig) -> None:
    service = await rig.nobody.get("/.well-known/postroom.json")
    assert (service["name"], service["version"]) == (
        "postroom",
        (await rig.nobody.get("/openapi.json"))["info"]["version"],
    )
    for name in ("openapi", "asyncapi", "health"):
        await rig.nobody.get(service["links"][name])


async def test_openapi_is_the_same_at_both_places(rig: Rig) -> None:
    assert await rig.nobody.get("/.well-known/openapi.json") == await rig.nobody.get("/openapi.json")


async def test_everything_the_broker_carries_is_described(rig: Rig, nats_server: NatsEndpoint, prefix: str) -> None:
    document = await rig.nobody.get("/.well-known/asyncapi.json")
    heard: list[tuple[str, bytes]] = []

    def note(message: Msg) -> None:
        subject = _without_prefix(message.subject, prefix)
        if subject is not None:
            heard.append((subject, message.data))

    broker = rig.gateway.broker
    subscription = await broker.subscribe(">", note)
    await broker.echo()
    agent = await _scenario(rig)
    await broker.echo()
    await broker.unsubscribe(subscription)

    seen: set[str] = set()
    for subject, payload in heard:
        [family] = families_of(subject) or [subject]
        assert family in document["channels"], subject
        if _is_ours(subject, agent):
            _check(document, family, payload)
            seen.add(family)
    assert seen >= {
        "ledger",
        "moved",
        "live",
        "echo",
        "bg",
        "inbox",
        "directory",
        "directory_changed",
        "session_attached",
    }


async def _scenario(rig: Rig) -> str:
    """A message on each pushed channel, and a session that echoes."""
    agent = await rig.max.agent("worker", "live", "bg", "inbox")
    await rig.max.session("worker", echoes=True)
    for mode in ("live", "bg"):
        await rig.max.send("worker", delivery_mode=mode)
    sent = await rig.max.send("worker", delivery_mode="inbox")
    await rig.max.post(f"/v1/messages/{sent['id']}/ack")
    identifier: str = agent["id"]
    return identifier


def _without_prefix(subject: str, prefix: str) -> str | None:
    """The subject as the document names it; None for the broker's own and for other installations'."""
    if subject.startswith(INTERNAL):
        return None
    if subject.startswith("$KV."):
        own = f"$KV.{prefix.upper()}_DIRECTORY."
        return f"$KV.DIRECTORY.{subject.removeprefix(own)}" if subject.startswith(own) else None
    if subject.startswith(("live.", "bg.", "inbox.", "hb.")):
        return subject
    return subject.removeprefix(f"{prefix}.") if subject.startswith(f"{prefix}.") else None


def _is_ours(subject: str, agent_id: str) -> bool:
    """Whether this test's own installation said it: pushes bear no prefix."""
    return not subject.startswith(("live.", "bg.", "inbox.", "hb.")) or agent_id in subject


def _check(document: Json, family: str, payload: bytes) -> None:
    """Its payload is what the document says; deletions and republished headers have none."""
    [message] = document["channels"][family]["messages"]
    is_json = document["components"]["messages"][message]["contentType"] == "application/json"
    if is_json and payload:
        jsonschema_rs.Draft7Validator(payload_schema(document, family)).validate(json.loads(payload))
