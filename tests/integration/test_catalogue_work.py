"""The catalogue of bad input over HTTP, part two: claims, leases, outcomes, heartbeats and webhook addresses."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import anyio
import httpx
import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, running_rig
from tests.refusals import MARK, assert_refused, nothing_stored

SESSIONS = "/v1/agents/mac/live-sessions"
TOKEN = "t" * 30


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("mac", "live", "bg", "inbox")
        yield running


async def refuse(rig: Rig, method: str, path: str, body: Any = None) -> httpx.Response:
    async with nothing_stored(rig):
        return await rig.max.call(method, path, json=body)


def execution(sent: Json, verb: str) -> str:
    return f"/v1/executions/{sent['execution_id']}/{verb}"


async def test_every_token_but_the_right_one_is_answered_alike(rig: Rig) -> None:
    await rig.max.agent("other", "live")
    await rig.eve.agent("mac", "live")
    await rig.max.session("mac", session_token=TOKEN)
    of_another_agent = await rig.max.session("other")
    of_another_owner = await rig.eve.session("mac")
    detached = await rig.max.session("mac", "gone")
    await rig.max.delete(f"{SESSIONS}/gone")
    silent = await rig.max.session("mac", "silent")
    await rig.max.post(f"{SESSIONS}/silent/heartbeat", {"age_s": 500})
    sent = await rig.max.send("mac", delivery_mode="live")

    tokens = ["", "x", MARK * 4, TOKEN[:-1], TOKEN + "t", TOKEN.upper(), of_another_agent["session_token"]]
    tokens += [each["session_token"] for each in (of_another_owner, detached, silent)]
    proofs: list[Json] = [{}, *[{"session_token": token} for token in tokens]]
    answers = [await refuse(rig, "POST", execution(sent, "live-claim"), proof) for proof in proofs]
    unproven = await rig.max.post(execution(sent, "outcome"), {"success": True, "executed_via": "live"})

    for answer in answers:
        assert_refused(answer, 403, "invalid_session_token")
    assert len({answer.content for answer in answers}) == 1
    assert unproven["delivery_route"] == "live_unverified"


@pytest.mark.parametrize("nonce", [None, "", MARK, "0" * 40])
async def test_the_right_token_without_the_pushs_nonce_is_not_enough(rig: Rig, nonce: str | None) -> None:
    await rig.max.session("mac", session_token=TOKEN, attestation="token+nonce")
    earlier = await rig.max.send("mac", delivery_mode="live")
    sent = await rig.max.send("mac", delivery_mode="live")
    offers = (await rig.max.get("/v1/executions/claimable", agent="mac"))["executions"]
    of_another_push = next(each["nonce"] for each in offers if each["execution_id"] == earlier["execution_id"])

    for wrong in (nonce, of_another_push):
        proof = {"session_token": TOKEN, "nonce": wrong}
        assert_refused(await refuse(rig, "POST", execution(sent, "live-claim"), proof), 403, "push_proof_missing")


async def test_a_claim_has_one_winner_and_losers_are_not_told_who(rig: Rig) -> None:
    await rig.max.session("mac", "the-winner", session_token=TOKEN)
    loser = await rig.max.session("mac", "the-loser")
    sent = await rig.max.send("mac", delivery_mode="live")
    path, proof = execution(sent, "live-claim"), {"session_token": TOKEN}
    won = await rig.max.post(path, proof)

    again = await refuse(rig, "POST", path, proof)
    lost = await refuse(rig, "POST", path, {"session_token": loser["session_token"]})
    await rig.max.post(execution(sent, "outcome"), {"success": True, "executed_via": "live"})
    late = await refuse(rig, "POST", path, proof)

    assert (again.status_code, again.json()["claimed_at"]) == (200, won["claimed_at"])
    assert_refused(lost, 409, "already_claimed")
    assert "winner" not in lost.text
    assert_refused(late, 409, "execution_closed")


async def test_a_claim_after_the_window_closed_changes_nothing(rig: Rig) -> None:
    await rig.max.session("mac", session_token=TOKEN)
    sent = await rig.max.send("mac", delivery_mode="live", claim_window_s=1)
    with anyio.fail_after(10):
        while datetime.now(UTC) <= datetime.fromisoformat(sent["deadline_at"]):
            await anyio.sleep(0.02)

    late = await refuse(rig, "POST", execution(sent, "live-claim"), {"session_token": TOKEN})

    assert_refused(late, 409, "claim_window_closed")


@pytest.mark.parametrize("mode", ["inbox", "bg", "webhook"])
async def test_what_was_never_offered_live_is_not_claimed_live(rig: Rig, mode: str) -> None:
    hook = {"delivery_capabilities": ["live", "bg", "inbox", "webhook"], "webhook_url": "https://example.com/"}
    await rig.max.patch("/v1/agents/mac", hook)
    await rig.max.session("mac", session_token=TOKEN)
    sent = await rig.max.send("mac", delivery_mode=mode)

    answer = await refuse(rig, "POST", execution(sent, "live-claim"), {"session_token": TOKEN})

    assert_refused(answer, 409, "not_offered_live")


async def test_a_claim_that_names_another_execution_is_refused(rig: Rig) -> None:
    await rig.max.session("mac", session_token=TOKEN)
    sent = await rig.max.send("mac", delivery_mode="live")

    body = {"session_token": TOKEN, "exec_id": f"exec_{MARK}"}
    answer = await refuse(rig, "POST", execution(sent, "live-claim"), body)

    assert_refused(answer, 422, "execution_mismatch", field="exec_id")


async def test_an_outcome_is_recorded_once(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="inbox")
    path, body = execution(sent, "outcome"), {"success": True, "result": {"b": 1, "a": [None, 1.5]}}
    recorded = await rig.max.post(path, body)

    again = await refuse(rig, "POST", path, {"result": {"a": [None, 1.5], "b": 1}, "success": True})
    other = await refuse(rig, "POST", path, {**body, "success": False})

    assert (again.status_code, again.json()["outcome"]) == (200, recorded["outcome"])
    assert_refused(other, 409, "outcome_conflict")


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"success": True, "result": "x" * 5_000_000}, 413, "payload_too_large", None),
        ({"success": True, "result": [f"{MARK}\0"]}, 422, "control_character", None),
        ({"success": True, "error": MARK * 2_000}, 422, "too_long", "error"),
        ({"success": "true"}, 422, "invalid_type", "success"),
        ({"success": True, "executed_via": "webhook"}, 422, "invalid_enum", "executed_via"),
        ({"success": True, "lease": 0}, 422, "out_of_range", "lease"),
        ({"success": True, "lease": "1"}, 422, "invalid_type", "lease"),
        ({"success": True, "route": MARK}, 422, "unknown_field", "route"),
        ({}, 422, "required", "success"),
    ],
)
async def test_an_outcome_that_cannot_be_is_not_recorded(
    rig: Rig, body: Json, status: int, code: str, field: str | None
) -> None:
    sent = await rig.max.send("mac", delivery_mode="inbox")

    answer = await refuse(rig, "POST", execution(sent, "outcome"), body)

    assert_refused(answer, status, code, field=field)
    assert (await rig.max.get(f"/v1/messages/{sent['id']}"))["outcome"] is None


async def test_an_outcome_of_markup_is_data(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="inbox")
    markup = "<script>alert(1)</script>\x1b[31m"

    answer = await rig.max.call("POST", execution(sent, "outcome"), json={"success": True, "result": markup})

    assert answer.json()["outcome"]["result"] == markup
    assert answer.headers["content-type"] == "application/json"


async def test_a_lease_that_is_over_counts_for_nothing(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="bg")
    await rig.max.post(execution(sent, "claim"), {"worker_id": "w1"})
    await rig.max.post(execution(sent, "release"), {"lease": 1, "reason": "exit_code"})

    for lease in (1, 2):
        for verb, body in (("heartbeat", {}), ("release", {"reason": "x"})):
            answer = await refuse(rig, "POST", execution(sent, verb), {"lease": lease, **body})
            assert_refused(answer, 409, "stale_lease")


async def test_the_outcome_of_another_lease_is_refused(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="bg")
    await rig.max.post(execution(sent, "claim"), {"worker_id": "w1", "lease_s": 60})

    for lease in (None, 2, 2**53):
        answer = await refuse(rig, "POST", execution(sent, "outcome"), {"success": True, "lease": lease})
        assert_refused(answer, 409, "stale_lease")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"{SESSIONS}/gone/heartbeat", "live_session_not_found"),
        (f"{SESSIONS}/never/heartbeat", "live_session_not_found"),
        (f"{SESSIONS}/{'x' * 300}/heartbeat", "live_session_not_found"),
        ("/v1/agents/mac@eve/live-sessions/main/heartbeat", "agent_not_found"),
        ("/v1/agents/nobody/live-sessions/main/heartbeat", "agent_not_found"),
    ],
)
async def test_a_heartbeat_of_a_session_that_is_not_there_counts_for_nothing(rig: Rig, path: str, code: str) -> None:
    await rig.eve.agent("mac", "live")
    of_eve = await rig.eve.session("mac")
    gone = await rig.max.session("mac", "gone")
    await rig.max.delete(f"{SESSIONS}/gone")
    beats = rig.gateway.parts.beats
    before = await beats.last_seen([of_eve["id"], gone["id"]])

    answer = await refuse(rig, "POST", path, {"age_s": 1})

    assert_refused(answer, 404, code)
    assert await beats.last_seen([of_eve["id"], gone["id"]]) == before


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"age_s": -1}, "out_of_range", "age_s"),
        ({"age_s": 1e300}, "out_of_range", "age_s"),
        ({"age_s": "0"}, "invalid_type", "age_s"),
        ({"last_seen_at": MARK}, "server_field", "last_seen_at"),
        ({"monitor_version": f"{MARK}\n"}, "control_character", "monitor_version"),
    ],
)
async def test_a_heartbeat_cannot_be_dated_at_will(rig: Rig, body: Json, code: str, field: str) -> None:
    session = await rig.max.session("mac")
    before = await rig.gateway.parts.beats.last_seen([session["id"]])

    assert_refused(await refuse(rig, "POST", f"{SESSIONS}/main/heartbeat", body), 422, code, field=field)
    assert await rig.gateway.parts.beats.last_seen([session["id"]]) == before


async def test_a_hundred_heartbeats_are_never_a_durable_write(rig: Rig) -> None:
    await rig.max.session("mac")

    async with nothing_stored(rig), anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(rig.max.post, f"{SESSIONS}/main/heartbeat")

    [session] = (await rig.max.get(SESSIONS))["live_sessions"]
    assert session["attached"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        *[(url, "scheme") for url in ("http://example.com/x", "file:///etc/passwd", "gopher://example.com/", "ftp://e.org/")],
        ("https://user:0ffending@example.com/", "userinfo"),
        ("https:///x", "empty_host"),
        ("https://example.com/#f", "fragment"),
        *[(f"https://example.com:{port}/", "port") for port in (0, 22, 99_999)],
        ("https://example.com/\r\nx-evil: 1", "character"),
        *[(f"https://{name}/", "loopback") for name in ("localhost", "localhost.", "a.localhost")],
        *[(f"https://{name}/", "local_name") for name in ("printer", "printer.local", "db.internal")],
        *[(f"https://{host}/", "noncanonical_address") for host in ("127.1", "2130706433", "0x7f000001", "0177.0.0.1")],
        *[(f"https://{host}/", "loopback") for host in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]")],
        *[(f"https://{host}/", "metadata") for host in ("169.254.169.254", "[64:ff9b::a9fe:a9fe]", "[fd00:ec2::254]")],
        *[(f"https://{host}/", "metadata") for host in ("[2002:a9fe:a9fe::1]", "metadata.google.internal")],
        ("https://[fe80::1]/", "link_local"),
        ("https://[fd12::1]/", "private"),
        ("https://10.0.0.1/", "private"),
        ("https://100.64.0.1/", "shared"),
        ("https://224.0.0.1/", "multicast"),
        ("https://0.0.0.0/", "unspecified"),
    ],
)  # fmt: skip
async def test_a_webhook_is_not_registered_where_it_must_not_go(rig: Rig, url: str, reason: str) -> None:
    fresh = {"slug": "hook", "delivery_capabilities": ["webhook"], "webhook_url": url}

    created = await refuse(rig, "POST", "/v1/agents", fresh)
    changed = await refuse(rig, "PATCH", "/v1/agents/mac", {"webhook_url": url})

    for answer in (created, changed):
        assert_refused(answer, 422, "invalid_webhook_url", field="webhook_url")
        assert answer.json()["error"]["reason"] == reason
        assert url.partition("//")[2] not in answer.text
