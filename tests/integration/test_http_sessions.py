"""Live sessions and hosts over HTTP: attached, fresh, rotated, detached."""

import hashlib
from collections.abc import AsyncIterator

import anyio
import pytest

from contracts.directory import BEAT_PROOFS, LiveSessions, ServerSecret, live_key, secret_key
from contracts.heartbeats import beat_proof
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Rig, code_of, running_rig

SESSIONS = "/v1/agents/mac/live-sessions"


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("mac", "live", "bg")
        yield running


async def test_an_attached_session_is_fresh_and_its_token_is_shown_once(rig: Rig) -> None:
    attached = await rig.max.session("mac", "main", attestation="token+nonce", monitor_version="1.0")
    listed = (await rig.max.get(SESSIONS))["live_sessions"]

    token, _ = attached.pop("session_token"), attached.pop("beat_proof")
    assert listed[0]["last_seen_at"] == attached["last_seen_at"]
    assert listed[0] | {"heartbeat_age_sec": 0} == attached
    assert attached["is_default"] is True
    assert attached["task_name"] == "main"
    assert attached["token_fingerprint"] == hashlib.sha256(token.encode()).hexdigest()[:12]
    assert (await rig.max.get("/v1/agents/mac"))["live_sessions"][0]["id"] == attached["id"]


async def test_only_a_hash_of_the_token_is_stored(rig: Rig) -> None:
    attached = await rig.max.session("mac")
    agent = await rig.max.get("/v1/agents/mac")

    found = await rig.gateway.parts.store.get(live_key(agent["id"]), LiveSessions)

    assert found is not None
    assert attached["session_token"] not in repr(found.record)


async def test_a_label_is_attached_once(rig: Rig) -> None:
    await rig.max.session("mac", "main")

    answer = await rig.max.call("POST", SESSIONS, json={"label": "main"})

    assert (answer.status_code, code_of(answer)) == (409, "live_session_conflict")


async def test_sessions_that_attach_at_once_all_attach_with_one_default(rig: Rig) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(rig.max.session, "mac", f"s{number}")

    listed = (await rig.max.get(SESSIONS))["live_sessions"]
    assert len(listed) == 5
    assert sum(each["is_default"] for each in listed) == 1


async def test_the_default_moves_and_the_token_rotates(rig: Rig) -> None:
    first = await rig.max.session("mac", "first")
    await rig.max.session("mac", "second")

    changed = await rig.max.patch(f"{SESSIONS}/second", {"is_default": True})
    rotated = await rig.max.patch(f"{SESSIONS}/first", {"session_token": "n" * 30})
    nothing = await rig.max.call("PATCH", f"{SESSIONS}/first", json={})

    assert changed["is_default"] is True
    assert rotated["is_default"] is False
    assert rotated["token_fingerprint"] != first["token_fingerprint"]
    assert (nothing.status_code, code_of(nothing)) == (400, "no_mutable_fields")


async def test_a_beat_is_dated_by_the_server_and_may_be_old(rig: Rig) -> None:
    await rig.max.session("mac")

    old = await rig.max.post(f"{SESSIONS}/main/heartbeat", {"age_s": 500})
    sent = await rig.max.send("mac", delivery_mode="live")
    fresh = await rig.max.post(f"{SESSIONS}/main/heartbeat", {"monitor_version": "2.0"})

    assert old["heartbeat_age_sec"] == 500
    assert sent["effective_delivery_mode"] == "background_fallback"
    assert (fresh["heartbeat_age_sec"], fresh["monitor_version"]) == (0, "2.0")
    assert (await rig.max.send("mac", delivery_mode="live"))["state"] == "offered"


async def test_a_detached_session_is_detached_for_good(rig: Rig) -> None:
    first = await rig.max.session("mac")

    gone = await rig.max.delete(f"{SESSIONS}/main")
    beat = await rig.max.call("POST", f"{SESSIONS}/main/heartbeat", json={})
    again = await rig.max.session("mac")

    assert (gone["id"], gone["attached"], gone["last_seen_at"]) == (first["id"], False, None)
    assert (beat.status_code, code_of(beat)) == (404, "live_session_not_found")
    assert again["id"] != first["id"]
    assert len((await rig.max.get(SESSIONS))["live_sessions"]) == 1
    assert len((await rig.max.get(SESSIONS, include_detached="true"))["live_sessions"]) == 2


async def test_a_label_with_a_blank_is_found_in_the_path(rig: Rig) -> None:
    await rig.max.session("mac", "Claude Code: main")

    beat = await rig.max.post(f"{SESSIONS}/Claude%20Code%3A%20main/heartbeat")

    assert beat["label"] == "Claude Code: main"


async def test_a_host_beats_for_its_own_agents_only(rig: Rig) -> None:
    mac = await rig.max.get("/v1/agents/mac")
    await rig.eve.agent("mac")
    body = {"host_id": "h1", "agents": ["mac", "mac@max", mac["id"], "nobody"]}

    own = await rig.max.post("/v1/hosts/heartbeat", body)
    foreign = await rig.eve.post("/v1/hosts/heartbeat", {"host_id": "h1", "agents": [mac["id"]]})

    assert own == {"seen": [mac["id"]]}
    assert foreign == {"seen": []}
    sent = await rig.max.send("mac", delivery_mode="bg")
    assert [gate["verdict"] for gate in sent["trace"] if gate["gate"] == "host_fresh"] == ["pass"]


async def test_whoever_attaches_for_a_monitor_is_given_what_it_beats_with(rig: Rig) -> None:
    attached = await rig.max.session("mac", "main", monitor_id="build-host-1")
    [secret] = await secrets_of(rig)
    assert attached["beat_proof"] == beat_proof(secret, attached["id"], "build-host-1")
    assert (await rig.max.session("mac", "other"))["beat_proof"] is None
    agent = await rig.max.get("/v1/agents/mac")
    found = await rig.gateway.parts.store.get(live_key(agent["id"]), LiveSessions)
    assert found is not None
    assert [session.monitor_id for session in found.record.sessions] == ["build-host-1", None]


@pytest.mark.parametrize("monitor_id", ["", "A", "a.b", "a b", ">", "-a", "x" * 64, 7])
async def test_a_monitor_is_named_by_what_a_subject_may_hold(rig: Rig, monitor_id: object) -> None:
    answer = await rig.max.call("POST", SESSIONS, json={"label": "main", "monitor_id": monitor_id})
    assert answer.status_code in {400, 422}, answer.text


async def secrets_of(rig: Rig) -> list[bytes]:
    found = await rig.gateway.parts.store.get(secret_key(BEAT_PROOFS), ServerSecret)
    return [bytes.fromhex(found.record.value)] if found else []
