"""The gateway's client: requests as the contract has them, answers as values, errors by who should act."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import respx

from contracts.errors import (
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    PostroomError,
    Rejected,
    Unauthenticated,
    Unavailable,
)
from contracts.words import Channel
from infra.gateway_client import GatewayClient
from monitor.backoff import Backoff, persist
from monitor.ports import Attached, Report
from tests.stub_gateway import AGENT_ID, BASE_URL, SLUG, problem, view

NAME = "exec_01jx5k9v3m7q2w8r4t6y0zacde"


@pytest.fixture
async def client() -> AsyncIterator[GatewayClient]:
    async with GatewayClient.open(BASE_URL, "prk_key", version="1.2") as client:
        yield client


@pytest.fixture
def http() -> Any:
    with respx.mock(base_url=BASE_URL, assert_all_called=False) as mocked:
        yield mocked


def body_of(http: Any) -> Any:
    return json.loads(http.calls.last.request.content)


async def test_an_agent_is_resolved_by_any_address(client: GatewayClient, http: Any) -> None:
    facts = {"id": AGENT_ID, "slug": SLUG, "address": f"{SLUG}@max", "heartbeat_age_sec": 90, "claim_window_s": 20}
    http.get(f"/v1/agents/{SLUG}@max").respond(200, json=facts | {"new_field": 1})
    agent = await client.agent(f"{SLUG}@max")
    assert (agent.id, agent.heartbeat_age_s, agent.claim_window_s) == (AGENT_ID, 90, 20)
    assert http.calls.last.request.headers["Authorization"] == "Bearer prk_key"


async def test_a_session_is_attached_with_the_higher_attestation(client: GatewayClient, http: Any) -> None:
    answer = {"id": "sess_1", "is_default": True, "beat_proof": "p" * 12}
    http.post(f"/v1/agents/{AGENT_ID}/live-sessions").respond(201, json=answer)
    attached = await client.attach(AGENT_ID, "main", "t" * 40, "mac-1")
    assert attached == Attached(session_id="sess_1", is_default=True, beat_proof="p" * 12)
    assert body_of(http) == {
        "label": "main",
        "session_token": "t" * 40,
        "monitor_id": "mac-1",
        "attestation": "token+nonce",
        "echoes": True,
        "monitor_version": "1.2",
    }


async def test_echoes_are_answered_and_asked_for_by_the_same_call(client: GatewayClient, http: Any) -> None:
    http.post("/v1/hosts/echo").respond(200, json={"echoes": []})
    await client.echo({AGENT_ID: "echo_1", "agent_2": None})
    assert body_of(http) == {"echoes": [{"agent_id": AGENT_ID, "echo_id": "echo_1"}, {"agent_id": "agent_2"}]}


async def test_many_sessions_beat_in_one_call_and_those_that_ended_are_named(client: GatewayClient, http: Any) -> None:
    statuses = {"sess_1": "connected", "sess_2": "stale", "sess_3": "disconnected", "sess_4": "unknown"}
    told = [{"session_id": name, "status": status, "last_seen_at": None} for name, status in statuses.items()]
    http.post("/v1/sessions/heartbeat").respond(200, json={"sessions": told, "next_beat_after_seconds": 30.0})
    assert await client.beat_sessions({"sess_1": 3.5, "sess_2": 0.0}) == ["sess_2", "sess_3", "sess_4"]
    assert body_of(http) == {
        "sessions": [{"session_id": "sess_1", "age_s": 3.5}, {"session_id": "sess_2", "age_s": 0.0}]
    }


async def test_host_beats_and_detaches_name_what_they_concern(client: GatewayClient, http: Any) -> None:
    http.delete(f"/v1/agents/{AGENT_ID}/live-sessions/a.b").respond(200, json={})
    http.post("/v1/hosts/heartbeat").respond(200, json={})
    await client.detach(AGENT_ID, "a.b")
    await client.beat_host("host", [AGENT_ID], ["agent_2"])
    assert body_of(http) == {"host_id": "host", "agents": [AGENT_ID], "echoes": ["agent_2"], "monitor_version": "1.2"}


async def test_what_waits_is_told_with_the_servers_clock(client: GatewayClient, http: Any) -> None:
    item = {"execution_id": NAME, "message_id": "msg_1", "agent_id": AGENT_ID, "channel": "live", "nonce": "n"}
    answer = {"executions": [item | {"claim_before": "2026-05-01T12:00:30Z"}]}
    http.get("/v1/executions/claimable").respond(200, json=answer, headers={"Date": "Fri, 01 May 2026 12:00:00 GMT"})
    (waiting,) = await client.claimable(AGENT_ID)
    assert waiting.served_at == datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert (waiting.channel, waiting.nonce) == (Channel.LIVE, "n")
    assert waiting.claim_before is not None
    assert (waiting.claim_before - waiting.served_at).total_seconds() == 30


async def test_a_live_claim_carries_token_and_nonce(client: GatewayClient, http: Any) -> None:
    answer = {"claimed": True, "level": "token+nonce", "message": view(NAME)}
    http.post(f"/v1/executions/{NAME}/live-claim").respond(200, json=answer)
    assert (await client.live_claim(NAME, "token", "n"))["message"] == view(NAME)
    assert body_of(http) == {"exec_id": NAME, "session_token": "token", "nonce": "n"}
    await client.live_claim(NAME, "token", None)
    assert "nonce" not in body_of(http)


async def test_leases_are_taken_extended_and_released(client: GatewayClient, http: Any) -> None:
    lease = {"number": 3, "expires_at": "2026-05-01T12:00:30Z"}
    leased = {"claimed": True, "execution_id": NAME, "lease": lease, "attempt": 2, "message": view(NAME)}
    http.post(f"/v1/executions/{NAME}/claim").respond(200, json=leased)
    http.post("/v1/executions/claim").mock(
        side_effect=[httpx.Response(200, json={"claimed": False}), httpx.Response(200, json=leased)]
    )
    http.post(f"/v1/executions/{NAME}/heartbeat").respond(200, json={"lease": lease})
    http.post(f"/v1/executions/{NAME}/release").respond(200, json=view(NAME))
    found = await client.lease(NAME, "host", 60)
    assert (found.number, found.attempt, found.message) == (3, 2, view(NAME))
    assert await client.lease_next(AGENT_ID, "host", 60) is None
    assert await client.lease_next(AGENT_ID, "host", 60) == found
    await client.extend(NAME, 3, 60)
    assert body_of(http) == {"lease": 3, "lease_s": 60}
    await client.release(NAME, 3, "exit_nonzero", "detail")
    assert body_of(http) == {"lease": 3, "reason": "exit_nonzero", "detail": "detail"}


async def test_the_word_that_a_message_was_taken_names_its_lease_where_there_is_one(
    client: GatewayClient, http: Any
) -> None:
    http.post(f"/v1/executions/{NAME}/in-context").respond(200, json={"execution_id": NAME})
    await client.in_context(NAME, 3)
    assert body_of(http) == {"lease": 3}
    await client.in_context(NAME, None)
    assert body_of(http) == {}


async def test_an_outcome_says_only_what_is_known(client: GatewayClient, http: Any) -> None:
    http.post(f"/v1/executions/{NAME}/outcome").respond(200, json=view(NAME))
    await client.outcome(NAME, Report(success=False, error="no", executed_via="bg", lease=3))
    said: dict[str, Any] = {"success": False, "error": "no", "executed_via": "bg", "lease": 3}
    assert body_of(http) == said | {"result": None, "metadata": {}}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Malformed),
        (401, Unauthenticated),
        (403, Forbidden),
        (404, NotFound),
        (405, Rejected),
        (409, Conflict),
        (413, Malformed),
        (422, Invalid),
        (408, Unavailable),
        (429, Unavailable),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
        (302, Unavailable),
    ],
)
async def test_a_status_becomes_the_error_of_who_should_act(
    client: GatewayClient, http: Any, status: int, kind: type[PostroomError]
) -> None:
    http.post(f"/v1/executions/{NAME}/heartbeat").respond(status, json=problem(status, "the_code")[1])
    with pytest.raises(kind) as refused:
        await client.extend(NAME, 1, 60)
    assert type(refused.value) is kind
    assert refused.value.code == "the_code"


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("1000000", 60), ("-1", 1), ("soon", 1), (None, 1)])
async def test_retry_after_is_heeded_within_reason(
    client: GatewayClient, http: Any, header: str | None, seconds: float
) -> None:
    headers = {"Retry-After": header} if header else {}
    http.post(f"/v1/executions/{NAME}/heartbeat").respond(503, headers=headers)
    with pytest.raises(Unavailable) as away:
        await client.extend(NAME, 1, 60)
    assert (away.value.code, away.value.retry_after_s) == ("http_503", seconds)


@pytest.mark.parametrize("error", [httpx.ConnectError("x"), httpx.ReadTimeout("x"), httpx.RemoteProtocolError("x")])
async def test_no_answer_means_that_it_may_be_asked_again(client: GatewayClient, http: Any, error: Exception) -> None:
    http.post("/v1/hosts/heartbeat").mock(side_effect=error)
    with pytest.raises(Unavailable) as away:
        await client.beat_host("host", [AGENT_ID], [])
    assert away.value.code == "gateway_unreachable"


@pytest.mark.parametrize("content", [b"<html>", b"{}", b'{"id": "../x", "slug": "a"}', b""])
async def test_an_answer_that_is_not_the_contracts_is_not_believed(
    client: GatewayClient, http: Any, content: bytes
) -> None:
    http.get(f"/v1/agents/{SLUG}").respond(200, content=content)
    with pytest.raises(Unavailable) as away:
        await client.agent(SLUG)
    assert away.value.code == "gateway_incomprehensible"


async def test_a_reference_cannot_leave_its_place_in_the_path(client: GatewayClient, http: Any) -> None:
    http.route().respond(404, json=problem(404, "not_found")[1])
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: client.agent("../keys"),
        lambda: client.detach(AGENT_ID, "a/../../b?c#d"),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            await call()
        assert b"/../" not in http.calls.last.request.url.raw_path
        assert b"?" not in http.calls.last.request.url.raw_path


async def test_a_call_is_repeated_over_an_outage_and_then_answered(client: GatewayClient, http: Any) -> None:
    refusal = httpx.Response(409, json=problem(409, "stale_lease")[1])
    answers = [httpx.ConnectError("x"), httpx.Response(503), refusal]
    http.post(f"/v1/executions/{NAME}/heartbeat").mock(side_effect=answers)
    with pytest.raises(Conflict) as refused:
        await persist(lambda: client.extend(NAME, 1, 60), what="test", backoff=Backoff(first_s=0.001, cap_s=0.01))
    assert refused.value.code == "stale_lease"
    assert http.calls.call_count == 3
