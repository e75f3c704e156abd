"""The catalogue of bad input over HTTP, part four: who calls, whose a thing is, lists, subscriptions, guards."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.cursor import write_cursor
from gateway.keys import KeyText, parse_key
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Caller, Json, Rig, code_of, running_rig
from tests.refusals import MARK, assert_refused, nothing_stored, nothing_told

GOOD: Json = {"to": "helper", "message": "x"}
FROM = "X-Postroom-From-Agent"
NOWHERE = "01jx5k9v3m7q2w8r4t6y0zacde"
WEBHOOK = {"event_type": "message.delivered", "delivery_target": "webhook"}
PULL = {"event_type": "message.read", "delivery_target": "pull"}
CALLS: list[tuple[str, str, Json | None]] = [
    ("POST", "/v1/messages", GOOD),
    ("POST", "/v1/route", {"to": "helper"}),
    ("POST", "/v1/agents", {"slug": "fresh"}),
    ("GET", "/v1/agents/helper/inbox", None),
    ("GET", "/v1/executions", None),
    ("GET", "/v1/events", None),
    ("POST", "/v1/agents/helper/subscriptions", {"event_type": "*", "delivery_target": "pull"}),
    ("POST", "/v1/agents/helper/live-sessions", {"label": "second"}),
    ("POST", "/v1/guards/reset", {"sender": "helper"}),
]


@pytest.fixture(scope="module")
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint) -> AsyncIterator[Rig]:
    """One gateway for all of them: none may leave anything behind."""
    async with running_rig(nats_server, redis_server, f"t{secrets.token_hex(5)}") as running:
        await running.max.agent("helper", "live", "bg", "inbox")
        await running.max.session("helper")
        yield running


@pytest.fixture(scope="module")
async def names(rig: Rig) -> dict[str, list[str]]:
    """Of each kind of name, one of something of max's and one of nothing at all."""
    agent = await rig.max.get("/v1/agents/helper")
    sent = await rig.max.send("helper", delivery_mode="inbox")
    kept = await rig.max.post(
        "/v1/agents/helper/subscriptions", {"event_type": "*", "delivery_target": "pull"}, status=201
    )
    await rig.max.post("/v1/grants", {"owner": "adam"}, status=201)
    await rig.max.post("/v1/worker/heartbeat", {"worker_id": "worker-of-max"})
    return {
        "agent": [agent["id"], "helper@max", "agent_000000000000", "nobody@max", "nobody@nowhere", "nobody"],
        "message": [sent["id"], f"msg_{NOWHERE}"],
        "execution": [sent["execution_id"], sent["id"], f"exec_{NOWHERE}", f"msg_{NOWHERE}"],
        "subscription": [kept["id"], f"sub_{NOWHERE}"],
        "key": [rig.max.key_id, "000000000000"],
        "owner": ["adam", "nobody"],
        "worker": ["worker-of-max", "nobody"],
    }


async def refuse(rig: Rig, method: str, path: str, **request: Any) -> httpx.Response:
    async with nothing_told(rig):
        return await rig.max.call(method, path, **request)


# --- whose a thing is ----------------------------------------------------------------------------------------------

OF_ANOTHER: list[tuple[str, str, str, Json | None]] = [
    *[("agent", "GET", f"/v1/agents/{{}}{rest}", None) for rest in ("", "/inbox", "/sent", "/presence", "/events")],
    ("agent", "GET", "/v1/agents/{}/inbox/stream?for_s=0.1", None),
    ("agent", "GET", "/v1/agents/{}/live-sessions", None),
    ("agent", "GET", "/v1/agents/{}/subscriptions", None),
    ("agent", "GET", "/v1/agents/{}/webhook-secret", None),
    ("agent", "GET", "/v1/executions?agent={}", None),
    ("agent", "GET", "/v1/executions/claimable?agent={}", None),
    ("agent", "PATCH", "/v1/agents/{}", {"heartbeat_age_sec": 60}),
    ("agent", "DELETE", "/v1/agents/{}", None),
    ("agent", "POST", "/v1/agents/{}/subscriptions", {"event_type": "*", "delivery_target": "pull"}),
    ("agent", "POST", "/v1/agents/{}/live-sessions", {"label": "second"}),
    ("agent", "POST", "/v1/agents/{}/live-sessions/main/heartbeat", {}),
    ("agent", "PATCH", "/v1/agents/{}/live-sessions/main", {"is_default": True}),
    ("agent", "DELETE", "/v1/agents/{}/live-sessions/main", None),
    ("agent", "POST", "/v1/messages", {"to": "{}", "message": "x"}),
    ("agent", "POST", "/v1/messages", {"to": "own", "message": "x", "reply_to_agent": "{}"}),
    ("agent", "POST", "/v1/route", {"to": "{}"}),
    ("agent", "POST", "/v1/executions/claim", {"agent": "{}", "worker_id": "w"}),
    ("agent", "POST", "/v1/guards/reset", {"sender": "{}"}),
    ("message", "GET", "/v1/messages/{}", None),
    ("message", "GET", "/v1/messages/{}/receipts", None),
    ("message", "GET", "/v1/threads/{}", None),
    *[("message", "POST", f"/v1/messages/{{}}/{verb}", None) for verb in ("cancel", "read", "ack")],
    ("message", "POST", "/v1/messages", {"to": "own", "message": "x", "reply_to": "{}"}),
    ("execution", "GET", "/v1/executions/{}", None),
    ("execution", "POST", "/v1/executions/{}/live-claim", {"session_token": "x"}),
    ("execution", "POST", "/v1/executions/{}/claim", {"worker_id": "w"}),
    ("execution", "POST", "/v1/executions/{}/heartbeat", {"lease": 1}),
    ("execution", "POST", "/v1/executions/{}/release", {"lease": 1, "reason": "x"}),
    ("execution", "POST", "/v1/executions/{}/outcome", {"success": True}),
    ("execution", "PATCH", "/v1/executions/{}/evidence", {"external_id": "x"}),
    ("execution", "POST", "/v1/executions/{}/verify", None),
    ("execution", "POST", "/v1/executions/{}/verification-pending", None),
    ("execution", "POST", "/v1/executions/{}/replay", None),
    ("key", "DELETE", "/v1/keys/{}", None),
    ("owner", "DELETE", "/v1/grants/{}", None),
    ("worker", "DELETE", "/v1/workers/{}", None),
]  # fmt: skip
NOT_FOUND = {
    "agent": "agent_not_found",
    "message": "message_not_found",
    "execution": "execution_not_found",
    "key": "key_not_found",
    "owner": "grant_not_found",
    "worker": "worker_not_found",
}


@pytest.mark.parametrize(("kind", "method", "path", "body"), OF_ANOTHER)
async def test_what_is_somebody_elses_is_answered_as_if_it_were_not_there(
    rig: Rig, names: dict[str, list[str]], kind: str, method: str, path: str, body: Json | None
) -> None:
    if body and body.get("to") == "own":
        await with_own_agent(rig.eve)
    async with nothing_told(rig):
        answers = [
            await rig.eve.call(method, path.format(name), json=filled(body, name) if body is not None else None)
            for name in names[kind]
        ]

    code = NOT_FOUND[kind]
    code = "thread_not_found" if "threads" in path else code
    code, field = ("reply_to_not_found", "reply_to") if body and "reply_to" in body else (code, None)
    for answer in answers:
        assert_refused(answer, 404, code, field=field)
    assert len({answer.content for answer in answers}) == 1


async def test_a_subscription_of_another_agent_is_not_there(rig: Rig, names: dict[str, list[str]]) -> None:
    await with_own_agent(rig.eve)
    async with nothing_told(rig):
        answers = [
            await rig.eve.call("PATCH", f"/v1/agents/own/subscriptions/{name}/ack", json={"acked_event_id": 1})
            for name in names["subscription"]
        ]
        gone = [await rig.eve.call("DELETE", f"/v1/agents/own/subscriptions/{name}") for name in names["subscription"]]

    # Neither is a mistake, as CueAPI's clients expect, and neither does anything.
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"acked": True})] * 2
    assert [(answer.status_code, answer.json()) for answer in gone] == [(200, {"detached": True})] * 2
    [kept] = (await rig.max.get("/v1/agents/helper/subscriptions"))["subscriptions"]
    assert (kept["id"], kept["last_acked_event_id"]) == (names["subscription"][0], None)


@pytest.mark.parametrize("header", [FROM, "X-Cueapi-From-Agent"])
async def test_nobody_sends_as_somebody_elses_agent(rig: Rig, names: dict[str, list[str]], header: str) -> None:
    await with_own_agent(rig.eve)
    body = {"to": "own", "message": "x"}

    async with nothing_told(rig):
        answers = [
            await rig.eve.call("POST", "/v1/messages", json=body, headers={header: name}) for name in names["agent"]
        ]
        malformed = await rig.eve.call("POST", "/v1/messages", json=body, headers={header: f"{MARK}@@"})

    assert len({answer.content for answer in answers}) == 1
    if header == FROM:
        assert_refused(answers[0], 404, "agent_not_found")
        assert_refused(malformed, 422, "invalid_address", field=FROM)
    else:
        told = [each.json()["detail"]["error"]["code"] for each in (answers[0], malformed)]
        assert told == ["agent_not_found", "invalid_agent_address"]
        assert MARK not in answers[0].text + malformed.text


async def with_own_agent(caller: Caller) -> None:
    if (await caller.call("GET", "/v1/agents/own")).status_code == 404:
        await caller.agent("own")


def filled(body: Json, name: str) -> Json:
    return {key: name if value == "{}" else value for key, value in body.items()}


# --- who is calling ------------------------------------------------------------------------------------------------


async def wrong_keys(rig: Rig) -> list[str]:
    """Keys that do not count: revoked, another secret under a known id, unknown, misspelt, too long, none at all."""
    minted = await rig.max.post("/v1/keys", {}, status=201)
    await rig.max.delete(f"/v1/keys/{minted['key_id']}", status=204)
    own = parse_key(rig.max.key)
    assert own is not None
    other_secret, unknown = KeyText(own.key_id, "s" * 43).text, KeyText("0" * 12, own.secret).text
    misspelt = own.text[:-1] + ("a" if own.text[-1] != "a" else "b")
    return [minted["key"], other_secret, unknown, misspelt, MARK * 1_500, ""]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_every_key_that_does_not_count_gets_the_one_answer(
    rig: Rig, method: str, path: str, body: Json | None
) -> None:
    credentials = [f"Bearer {key}" for key in await wrong_keys(rig)] + [f"Basic {rig.max.key}", rig.max.key]
    async with nothing_told(rig):
        answers = [await rig.http.request(method, path, json=body)]
        for each in credentials:
            answers.append(await rig.http.request(method, path, json=body, headers={"authorization": each}))
        twice = [("authorization", f"Bearer {rig.max.key}")] * 2
        answers.append(await rig.http.request(method, path, json=body, headers=twice))

    for answer in answers:
        assert_refused(answer, 401, "invalid_credentials")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert len({answer.content for answer in answers}) == 1


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_a_key_in_the_url_is_refused_beside_a_good_one(
    rig: Rig, method: str, path: str, body: Json | None
) -> None:
    answer = await refuse(rig, method, f"{path}?api_key={rig.max.key}", json=body)

    assert_refused(answer, 400, "credentials_in_url")
    assert rig.max.key not in answer.text


async def test_a_key_without_the_right_is_told_which_right_it_lacks(rig: Rig) -> None:
    for path, body in (
        ("/v1/keys", {"admin": True}),
        ("/v1/keys", {"owner": "eve"}),
        ("/v1/agents", {"slug": "fresh", "owner": "eve"}),
    ):
        assert_refused(await refuse(rig, "POST", path, json=body), 403, "admin_key_required")
    assert_refused(await refuse(rig, "GET", "/v1/guards?owner=eve"), 403, "admin_key_required")


# --- bodies, paths and methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b'{"to": "helper", ', b'{"to": "helper", "message": "x"} x'])
async def test_a_body_that_breaks_off_says_where(rig: Rig, text: bytes) -> None:
    answer = await refuse(rig, "POST", "/v1/messages", content=text, headers={"content-type": "application/json"})

    assert_refused(answer, 400, "invalid_json")
    assert 0 < answer.json()["error"]["offset"] <= len(text)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/agents", "/v1/agents/helper/subscriptions", "/v1/guards/reset"])
@pytest.mark.parametrize(
    "media", ["multipart/form-data; boundary=x", "text/plain", "application/x-www-form-urlencoded"]
)
async def test_a_form_is_no_body(rig: Rig, path: str, media: str) -> None:
    answer = await refuse(rig, "POST", path, content=b'{"to": "helper"}', headers={"content-type": media})

    assert_refused(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/messages", "message"),
        ("/v1/agents/helper/live-sessions", "label"),
        ("/v1/agents/helper/subscriptions", "event_type"),
    ],
)
async def test_what_has_to_be_there_is_asked_for_by_name(rig: Rig, path: str, field: str) -> None:
    body = {"to": "helper"} if path == "/v1/messages" else {}

    assert_refused(await refuse(rig, "POST", path, json=body), 422, "required", field=field)


@pytest.mark.parametrize("method", ["PUT", "TRACE", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/agents/helper", "/v1/events", "/v1/guards/reset"])
async def test_a_method_a_path_does_not_know_is_refused(rig: Rig, method: str, path: str) -> None:
    answer = await refuse(rig, method, path, headers={"X-HTTP-Method-Override": "DELETE"})

    assert answer.status_code == 405
    if method != "HEAD":
        assert_refused(answer, 405, "method_not_allowed")


@pytest.mark.parametrize(
    "path",
    ["/v1/messages/%2e%2e", "/v1/executions/exec_%3E", "/v1/threads/msg_nonsense", "/v1/messages/MSG_" + NOWHERE],
)
async def test_ids_nobody_minted_lead_nowhere(rig: Rig, path: str) -> None:
    answer = await refuse(rig, "GET", path)

    assert answer.status_code == 404
    assert code_of(answer).endswith("not_found")
    assert_refused(answer, 404, code_of(answer))


# --- lists ---------------------------------------------------------------------------------------------------------

LISTS = ["/v1/agents/helper/inbox", "/v1/agents/helper/sent", "/v1/executions", "/v1/agents"]


@pytest.mark.parametrize("path", [*LISTS, "/v1/events", "/v1/agents/helper/events", "/v1/executions/claimable"])
@pytest.mark.parametrize(
    ("limit", "code"),
    [("0", "out_of_range"), ("-1", "out_of_range"), ("1000000000", "out_of_range"), (MARK, "invalid_type")],
)
async def test_a_page_has_a_size(rig: Rig, path: str, limit: str, code: str) -> None:
    assert_refused(await refuse(rig, "GET", f"{path}?limit={limit}"), 422, code, field="limit")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("cursor", ["", MARK, "%%%", "1", write_cursor("1", "executions:eve")])
async def test_a_cursor_of_another_list_goes_on_nowhere(rig: Rig, path: str, cursor: str) -> None:
    assert_refused(await refuse(rig, "GET", path, params={"cursor": cursor}), 400, "invalid_cursor", field="cursor")


@pytest.mark.parametrize(
    ("path", "query", "status", "code", "field"),
    [
        ("/v1/agents/helper/inbox", {"state": MARK}, 422, "invalid_enum", "state"),
        ("/v1/agents/helper/sent", {"state": MARK}, 422, "invalid_enum", "state"),
        ("/v1/agents/helper/sent", {"priority": "6"}, 422, "invalid_enum", "priority"),
        ("/v1/agents/helper/inbox", {"counterpart": f"{MARK}@@"}, 422, "invalid_address", "counterpart"),
        ("/v1/agents/helper/inbox", {"thread_id": MARK}, 422, "invalid_format", "thread_id"),
        ("/v1/agents/helper/inbox", {"since": "2026-01-01T00:00:00"}, 422, "invalid_format", "since"),
        ("/v1/events", {"after": "-1"}, 422, "out_of_range", "after"),
        ("/v1/events", {"wait_s": "61"}, 422, "out_of_range", "wait_s"),
        ("/v1/events", {"type": MARK}, 400, "unknown_event_type", "type"),
        ("/v1/events/stream", {"type": MARK}, 400, "unknown_event_type", "type"),
        ("/v1/agents/helper/events", {"event_type": MARK}, 400, "unknown_event_type", "event_type"),
        ("/v1/agents/helper/events", {"since": MARK}, 422, "invalid_type", "since"),
        ("/v1/executions", {"state": MARK}, 422, "invalid_enum", "state"),
        ("/v1/executions", {"status__in": MARK}, 400, "invalid_status_in", "status__in"),
        ("/v1/agents", {"status": MARK}, 400, "invalid_status", "status"),
    ],
)
async def test_a_filter_that_cannot_be_is_named(
    rig: Rig, path: str, query: dict[str, str], status: int, code: str, field: str
) -> None:
    assert_refused(await refuse(rig, "GET", path, params=query), status, code, field=field)


# --- subscriptions and guards --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"event_type": MARK, "delivery_target": "pull"}, 400, "unknown_event_type", "event_type"),
        ({"event_type": "*", "delivery_target": MARK}, 400, "invalid_delivery_target", "delivery_target"),
        (WEBHOOK, 400, "invalid_delivery_target", "delivery_target"),
        *[
            ({**WEBHOOK, "webhook_url": url}, 400, "invalid_webhook_url", "webhook_url")
            for url in ("http://example.com/", "https://127.1/", "https://[::1]/", "https://u:0ffending@example.com/")
        ],
        ({**PULL, "owner": MARK}, 422, "server_field", "owner"),
        ({**PULL, "x": MARK}, 422, "unknown_field", "x"),
        ({**PULL, "inline_body": 1}, 422, "invalid_type", "inline_body"),
        ({"event_type": 1, "delivery_target": "pull"}, 422, "invalid_type", "event_type"),
    ],
)  # fmt: skip
async def test_what_cannot_be_subscribed_to_is_not_stored(
    rig: Rig, body: Json, status: int, code: str, field: str
) -> None:
    answer = await refuse(rig, "POST", "/v1/agents/helper/subscriptions", json=body)

    assert_refused(answer, status, code, field=field)


@pytest.mark.parametrize(("value", "code"), [(-1, "out_of_range"), ("1", "invalid_type"), (True, "invalid_type")])
async def test_what_is_no_place_in_the_log_is_not_acknowledged(
    rig: Rig, names: dict[str, list[str]], value: object, code: str
) -> None:
    path = f"/v1/agents/helper/subscriptions/{names['subscription'][0]}/ack"

    assert_refused(await refuse(rig, "PATCH", path, json={"acked_event_id": value}), 422, code, field="acked_event_id")


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "required", None),
        ({"sender": f"{MARK}@@"}, "invalid_address", "sender"),
        ({"recipient": [MARK]}, "invalid_type", "recipient"),
        ({"owner": MARK}, "server_field", "owner"),
    ],
)
async def test_a_guard_is_reset_by_names_that_can_be(rig: Rig, body: Json, code: str, field: str | None) -> None:
    assert_refused(await refuse(rig, "POST", "/v1/guards/reset", json=body), 422, code, field=field)


async def test_agents_that_answer_each_other_automatically_stop_and_nothing_is_stored(rig: Rig) -> None:
    pair = ("echo-a", "echo-b")
    for slug in pair:
        await rig.max.agent(slug)
    headers = [{FROM: slug} for slug in pair]
    body = {"message": "x", "auto_reply": True}
    first = await rig.max.post("/v1/messages", {**body, "to": pair[1]}, status=201, headers=headers[0])
    answer = {**body, "to": pair[0], "reply_to": first["id"]}

    async with nothing_stored(rig):
        refused = await rig.max.call("POST", "/v1/messages", json=answer, headers=headers[1])

    assert_refused(refused, 409, "auto_reply_to_auto_reply")
    assert refused.json()["error"]["trace"][-1]["verdict"] == "fail"
