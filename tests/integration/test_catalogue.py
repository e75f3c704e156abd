"""The catalogue of bad input over HTTP, part one: bodies, fields, keys, paths and addresses. Nothing is ever stored."""

import json
import secrets
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from gateway.cursor import write_cursor
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, expect, running_rig
from tests.refusals import MARK, assert_refused, nothing_stored

GOOD: Json = {"to": "helper", "message": "x"}
JSON = {"content-type": "application/json"}
SURROGATE = "\\ud800"
CONTROLS = "\r\n\t\x1b\x7f\x9b\u2028"
NO_MODES: list[object] = ["LIVE", MARK, 1, True, None, []]
NO_INTEGERS: list[object] = ["30", True, 30.0, []]
GOOD_WHERE: Json = {"kind": "llm"}
NO_OBJECTS: list[object] = [None, [], MARK, 7, True]
NO_SCALARS: list[object] = [{}, {"in": [MARK]}, [[MARK]], [{}]]
NO_SELECTORS: list[tuple[object, str]] = [
    *[(where, "invalid_type") for where in NO_OBJECTS],
    ({}, "too_short"),
    ({f"capabilities.{n}": 1 for n in range(11)}, "too_long"),
    *[({key: 1}, "unknown_term") for key in (MARK, "", "kind ", "Kind", "owner", "webhook_secret", "metadata.a")],
    *[({f"capabilities{end}": 1}, "unknown_term") for end in ("", ".", "..a", ".a.", ".a" * 9)],
    ({"capabilities." + "a" * 200: 1}, "unknown_term"),
    *[({"kind": value}, "invalid_type") for value in NO_SCALARS],
    ({"kind": []}, "too_short"),
    ({"kind": [MARK] * 21}, "too_long"),
    ({"kind": MARK * 300}, "too_long"),
]
NO_PROJECTS = ("", "A", "a.b", "*", ">", "a b", "-a", "a-", "max@max", MARK + ".", "\u0430")
RESERVED = ("nats", "Nats-Msg-Id", "_x", "X-Router-Hop")
UNLIKE_A_SLUG = ". *>$/%:@_A\n\u202e\u200b\u0430\uff41\u0301"
IMITATIONS = ("_inbox", "agent_0123456789ab", "-a", "a-", "\u0430dmin")


@pytest.fixture(scope="module")
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint) -> AsyncIterator[Rig]:
    """One gateway for all of them: none may leave anything behind."""
    async with running_rig(nats_server, redis_server, f"t{secrets.token_hex(5)}") as running:
        await running.max.agent("helper")
        await running.max.agent("asleep", status="inactive")
        yield running


async def refuse(rig: Rig, method: str, path: str, **request: Any) -> httpx.Response:
    async with nothing_stored(rig):
        return await rig.max.call(method, path, **request)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(b"", 400, "invalid_json_object", id="1-empty"),
        pytest.param(b"null", 400, "invalid_json_object", id="1-null"),
        pytest.param(b"[1]", 400, "invalid_json_object", id="1-array"),
        pytest.param(b'"0ffending"', 400, "invalid_json_object", id="1-string"),
        pytest.param(b'{"to": "helper", "message": "0ffending', 400, "invalid_json", id="2-truncated"),
        pytest.param(b'{"to": "helper", "message": "x"} 0ffending', 400, "invalid_json", id="2-trailing"),
        pytest.param('{"to":"helper","message":"x"}'.encode("utf-16-le"), 400, "invalid_encoding", id="4-utf-16"),
        pytest.param(b'\xef\xbb\xbf{"to":"helper","message":"x"}', 400, "invalid_encoding", id="4-mark"),
        pytest.param(b'{"to":"helper","message":"\xff0ffending"}', 400, "invalid_encoding", id="4-not-utf-8"),
        pytest.param(b'{"to":"helper","message":"x","message":"0ffending"}', 400, "duplicate_key", id="5"),
        pytest.param(b'{"to":"helper","metadata":{"a":1,"\\u0061":2}}', 400, "duplicate_key", id="5-deep"),
        pytest.param(b'{"to":"helper","message":"x","ttl_s":NaN}', 400, "invalid_number", id="6-nan"),
        pytest.param(b'{"to":"helper","message":"x","ttl_s":-Infinity}', 400, "invalid_number", id="6-infinity"),
        pytest.param(b'{"to":"helper","message":"x","metadata":{"n":1e999}}', 400, "invalid_number", id="6-1e999"),
        pytest.param(b'{"to":"helper","message":"x","ttl_s":%s}' % (b"7" * 4_000), 400, "number_out_of_range", id="7"),
        pytest.param(b'{"metadata":%s' % (b'{"a":' * 40 + b"1" + b"}" * 41), 400, "too_deep", id="8"),
        pytest.param(b"[" * 100_000, 400, "too_deep", id="8-flood"),
        pytest.param(b"{%s}" % b",".join(b'"%d":1' % n for n in range(11_000)), 413, "too_many_elements", id="9-keys"),
        pytest.param(b'{"a":[%s]}' % b",".join([b"1"] * 60_000), 413, "too_many_elements", id="9-items"),
        pytest.param(b'{"to":"helper","message":"%s"}' % ("ü" * 70_000).encode(), 413, "payload_too_large", id="16"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/agents"])
async def test_a_body_that_cannot_be_read_is_refused(rig: Rig, path: str, body: bytes, status: int, code: str) -> None:
    answer = await refuse(rig, "POST", path, content=body, headers=JSON)

    assert_refused(answer, status, code)


@pytest.mark.parametrize("media", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
async def test_a_body_of_another_kind_is_refused(rig: Rig, media: str | None) -> None:
    headers = {"content-type": media} if media else {}

    answer = await refuse(rig, "POST", "/v1/messages", content=json.dumps(GOOD), headers=headers)

    assert_refused(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip"])
async def test_a_body_in_a_coding_is_refused(rig: Rig, coding: str) -> None:
    headers = {**JSON, "content-encoding": coding}

    answer = await refuse(rig, "POST", "/v1/agents", content=b'{"slug": "x"}', headers=headers)

    assert_refused(answer, 415, "unsupported_encoding")


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        *[({name: MARK}, "server_field", name) for name in ("sender", "from", "owner", "hop", "accepted_at", "state")],
        *[({name: f"msg_{MARK}"}, "server_field", name) for name in ("id", "message_id", "execution_id")],
        ({"unheard_of": MARK}, "unknown_field", "unheard_of"),
        ({f"a {MARK}\n": 1}, "unknown_field", None),
        ({"message": None}, "invalid_type", "message"),
        ({"message": ""}, "required", "message"),
        ({"message": " \u00a0\u3000\t"}, "required", "message"),
        ({"subject": f"{MARK}\u0000"}, "control_character", None),
        ({"message": f"{MARK}\u0000"}, "control_character", None),
        *[({"subject": f"{MARK}{character}"}, "control_character", "subject") for character in CONTROLS],
        *[({"delivery_mode": word}, "invalid_enum", "delivery_mode") for word in NO_MODES],
        *[({"live_fallback_mode": word}, "invalid_enum", "live_fallback_mode") for word in ("bg", MARK, True)],
        ({"delivery_mode": "inbox", "live_fallback_mode": "none"}, "field_not_applicable", None),
        *[({"ttl_s": value}, "out_of_range", "ttl_s") for value in (0, -1, 10**12)],
        *[({"ttl_s": value}, "invalid_type", "ttl_s") for value in NO_INTEGERS],
        *[({"metadata": {key: 1}}, "reserved_key", "metadata") for key in RESERVED],
        ({"metadata": {"a": MARK * 2_000}}, "metadata_too_large", "metadata"),
        ({"metadata": [MARK]}, "invalid_type", "metadata"),
        *[({"to": text}, "invalid_address", "to") for text in ("", " ", "@", "a@", "@b", "a@b@c", f"{MARK}.")],
        *[({"to": text}, "invalid_address", "to") for text in ("agent_", "agent_ZZ!", "agent_abc", "AGT_0123456789AB")],
        *[({"to": f"a{character}b"}, "invalid_address", "to") for character in ". *>$/%:\n\u0430\uff41\u0301_"],
        ({"to": MARK * 1_000}, "invalid_address", "to"),
        ({"to": [MARK]}, "invalid_type", "to"),
        ({"to": {"slug": MARK}}, "required", "to.where"),
        *[({"to": {"where": where}}, code, "to.where") for where, code in NO_SELECTORS],
        *[({"to": {"where": GOOD_WHERE, "pick": word}}, "invalid_enum", "to.pick") for word in ("2", MARK, None)],
        *[({"to": {"where": GOOD_WHERE, "project": name}}, "invalid_format", "to.project") for name in NO_PROJECTS],
        ({"to": {"where": GOOD_WHERE, "project": "a" * 64}}, "too_long", "to.project"),
        ({"to": {"where": GOOD_WHERE, "project": 7}}, "invalid_type", "to.project"),
        ({"to": {"where": GOOD_WHERE, "project": f"a{MARK}\n"}}, "control_character", "to.project"),
        ({"to": {"where": GOOD_WHERE, "limit": MARK}}, "unknown_field", "to.limit"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/route"])
async def test_a_field_that_cannot_be_is_refused(rig: Rig, path: str, change: Json, code: str, field: str) -> None:
    answer = await refuse(rig, "POST", path, json={**GOOD, **change})

    if path == "/v1/route" and "message" in change and code in {"required", "invalid_type"}:
        assert answer.status_code == 200  # a question may leave the message out
    else:
        assert_refused(answer, 400 if code == "metadata_too_large" else 422, code, field=field)


async def test_the_refusal_of_a_mode_lists_the_five(rig: Rig) -> None:
    answer = await refuse(rig, "POST", "/v1/messages", json={**GOOD, "delivery_mode": "push"})

    assert all(f"'{mode}'" in answer.json()["detail"] for mode in ("live", "bg", "inbox", "webhook", "auto"))


@pytest.mark.parametrize(
    "body",
    [
        '{"to":"helper","message":"%s"}',
        '{"to":"%s","message":"x"}',
        '{"to":"helper","message":"x","subject":"%s"}',
        '{"to":"helper","message":"x","metadata":{"a":["%s"]}}',
        '{"to":"helper","message":"x","metadata":{"%s":1}}',
        '{"to":"helper","message":"x","%s":1}',
    ],
)
async def test_half_a_surrogate_pair_is_refused_wherever_it_stands(rig: Rig, body: str) -> None:
    answer = await refuse(rig, "POST", "/v1/messages", content=body % SURROGATE, headers=JSON)

    assert_refused(answer, 422, "invalid_unicode")


@pytest.mark.parametrize("mode", ["live", "bg", "webhook"])
async def test_a_mode_that_was_never_declared_stores_nothing(rig: Rig, mode: str) -> None:
    answer = await refuse(rig, "POST", "/v1/messages", json={**GOOD, "delivery_mode": mode})

    assert_refused(answer, 422, "capability_not_declared")
    assert answer.json()["error"]["trace"]


async def test_an_agent_that_takes_no_messages_is_left_alone(rig: Rig) -> None:
    answer = await refuse(rig, "POST", "/v1/messages", json={**GOOD, "to": "asleep"})

    assert_refused(answer, 409, "agent_inactive")


@pytest.mark.parametrize("key", [b"", b"x" * 300, b"a\tb", b"\xc3\xbc", b"\x7f"])
async def test_an_idempotency_key_that_cannot_be_is_refused(rig: Rig, key: bytes) -> None:
    answer = await refuse(rig, "POST", "/v1/messages", json=GOOD, headers={"idempotency-key": key})

    assert_refused(answer, 422, "invalid_idempotency_key", field="Idempotency-Key")


@pytest.mark.parametrize("name", ["idempotency-key", "x-postroom-from-agent"])
async def test_a_header_sent_twice_is_refused(rig: Rig, name: str) -> None:
    headers = [*rig.max.headers.items(), (name, "helper"), (name, "helper")]

    async with nothing_stored(rig):
        answer = await rig.http.post("/v1/messages", json=GOOD, headers=headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "duplicate_header")


async def test_another_body_under_a_used_idempotency_key_changes_nothing(rig: Rig) -> None:
    headers = {"idempotency-key": secrets.token_hex()}
    first = expect(201, await rig.max.call("POST", "/v1/messages", json=GOOD, headers=headers))

    other = await refuse(rig, "POST", "/v1/messages", json={**GOOD, "message": MARK}, headers=headers)
    again = expect(200, await refuse(rig, "POST", "/v1/messages", json=GOOD, headers=headers))

    assert_refused(other, 409, "idempotency_mismatch")
    assert (again["id"], again["message"]) == (first["id"], "x")


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"preferred_contact": "sync"}, "invalid_enum", "preferred_contact"),
        ({"profile": {"work_style": "live"}}, "invalid_enum", "profile.work_style"),
        ({"profile": {"preferred_contact": "bg"}}, "invalid_enum", "profile.preferred_contact"),
        ({"delivery_capabilities": []}, "too_short", "delivery_capabilities"),
        ({"delivery_capabilities": ["bg", "bg"]}, "duplicate_item", "delivery_capabilities"),
        ({"delivery_capabilities": [MARK]}, "invalid_enum", "delivery_capabilities.0"),
        ({"preferred_contact": "live"}, "preferred_not_declared", "preferred_contact"),
        ({"webhook_secret": MARK}, "server_field", "webhook_secret"),
        *[({"slug": word}, "reserved_slug", "slug") for word in ("admin", "system", "me", "all", "live")],
        *[({"slug": f"a{character}b"}, "invalid_format", "slug") for character in UNLIKE_A_SLUG],
        *[({"slug": word}, "invalid_format", "slug") for word in IMITATIONS],
        ({"slug": "a" * 64}, "too_long", "slug"),
    ],
)  # fmt: skip
async def test_an_agent_that_cannot_be_is_not_registered(rig: Rig, change: Json, code: str, field: str) -> None:
    created = await refuse(rig, "POST", "/v1/agents", json={"slug": "fresh", **change})
    changed = await refuse(rig, "PATCH", "/v1/agents/helper", json=change)

    assert_refused(created, 422, code, field=field)
    assert_refused(changed, 422, code, field=field)


async def test_marks_that_turn_text_around_are_kept_in_a_subject_as_they_are(rig: Rig) -> None:
    sent = await rig.max.send("helper", subject="a\u202eb\u200b", message="<script>alert(1)</script>")
    answer = await rig.max.call("GET", f"/v1/messages/{sent['id']}")

    assert answer.json()["subject"] == "a\u202eb\u200b"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("position", ["x", "-1", "1.5", "9" * 40, "\u0661", " 1"])
async def test_a_forged_cursor_is_a_cursor_of_no_list(rig: Rig, position: str) -> None:
    scope = "executions:max:None:None:None"

    answer = await refuse(rig, "GET", "/v1/executions", params={"cursor": write_cursor(position, scope)})

    assert_refused(answer, 400, "invalid_cursor", field="cursor")


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("wait_s=nan", "out_of_range", "wait_s"),
        (f"wait_s={MARK}", "invalid_type", "wait_s"),
        ("wait_s=61", "out_of_range", "wait_s"),
        (f"limit={MARK}", "invalid_type", "limit"),
        ("limit=1000000000", "out_of_range", "limit"),
        (f"count_only={MARK}", "invalid_type", "count_only"),
        (f"state={MARK}", "invalid_enum", "state"),
    ],
)
async def test_a_question_that_cannot_be_is_named(rig: Rig, query: str, code: str, field: str) -> None:
    assert_refused(await refuse(rig, "GET", f"/v1/agents/helper/inbox?{query}"), 422, code, field=field)


@pytest.mark.parametrize(
    "text", [" ", "@", "a@", "@b", "a@b@c", "agent_", "agent_ZZ!", "a*", "a>", "a.", "A", "a\n", "..%"]
)
async def test_what_is_no_address_is_none_in_path_query_and_list_either(rig: Rig, text: str) -> None:
    in_path = await refuse(rig, "GET", f"/v1/agents/{quote(text, safe='')}")
    in_query = await refuse(rig, "GET", "/v1/executions", params={"agent": text})
    in_list = await refuse(rig, "POST", "/v1/hosts/heartbeat", json={"host_id": "h", "agents": ["helper", text]})

    assert_refused(in_path, 422, "invalid_address", field="ref")
    assert_refused(in_query, 422, "invalid_address", field="agent")
    assert_refused(in_list, 422, "invalid_address", field="agents")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/agents/",
        "/v1//agents",
        "//v1/agents",
        "/v1/agents/a%2Fb",
        "/v1/Agents",
        "/v1/agents/helper/",
        "/v1/agents;x",
    ],
)
async def test_a_path_is_taken_literally(rig: Rig, path: str) -> None:
    assert_refused(await refuse(rig, "GET", path), 404, "not_found")


async def test_no_header_turns_one_method_into_another(rig: Rig) -> None:
    headers = {"x-http-method-override": "DELETE", "x-method-override": "DELETE", "x-http-method": "DELETE"}

    answer = await refuse(rig, "GET", "/v1/agents/helper?_method=DELETE", headers=headers)

    assert answer.json()["slug"] == "helper"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/agents", "/healthz"])
async def test_pages_of_other_origins_are_told_nothing(rig: Rig, path: str) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}

    answer = await refuse(rig, "OPTIONS", path, headers=headers)

    assert_refused(answer, 405, "method_not_allowed")
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_who_forwarded_a_request_makes_no_difference(rig: Rig) -> None:
    spoofed = {"x-forwarded-for": "127.0.0.1", "x-forwarded-host": MARK, "x-forwarded-proto": "https", "host": MARK}

    plain = await refuse(rig, "GET", "/v1/agents/nobody")
    answer = await refuse(rig, "GET", "/v1/agents/nobody", headers={**spoofed, "forwarded": f"for={MARK}"})

    assert (answer.status_code, answer.content) == (plain.status_code, plain.content)
    assert MARK not in str(answer.headers)


async def test_an_old_name_leads_nowhere_and_the_id_still_does(rig: Rig) -> None:
    agent = await rig.max.agent("first-name")
    await rig.max.patch("/v1/agents/first-name", {"slug": "second-name"})

    old = await refuse(rig, "POST", "/v1/messages", json={**GOOD, "to": "first-name"})

    assert_refused(old, 404, "agent_not_found")
    assert (await rig.max.send(agent["id"]))["to"]["slug"] == "second-name"


async def test_an_agent_may_write_to_itself(rig: Rig) -> None:
    headers = {"X-Postroom-From-Agent": "helper"}

    sent = await rig.max.post("/v1/messages", GOOD, status=201, headers=headers)

    assert sent["from"]["agent_id"] == sent["to"]["agent_id"]


NOWHERE = "01jx5k9v3m7q2w8r4t6y0zacde"
OF_A_MESSAGE = [
    ("GET", "/v1/messages/{}", None),
    ("POST", "/v1/messages/{}/cancel", None),
    ("POST", "/v1/messages/{}/read", None),
    ("POST", "/v1/messages/{}/ack", None),
]
OF_AN_EXECUTION = [
    ("GET", "/v1/executions/{}", None),
    ("POST", "/v1/executions/{}/live-claim", {"session_token": "x"}),
    ("POST", "/v1/executions/{}/claim", {"worker_id": "w"}),
    ("POST", "/v1/executions/{}/heartbeat", {"lease": 1}),
    ("POST", "/v1/executions/{}/release", {"lease": 1, "reason": "x"}),
    ("POST", "/v1/executions/{}/outcome", {"success": True}),
]
OF_AN_AGENT = [
    ("GET", "/v1/agents/{}", None),
    ("PATCH", "/v1/agents/{}", {"status": "inactive"}),
    ("DELETE", "/v1/agents/{}", None),
    ("GET", "/v1/agents/{}/inbox", None),
    ("GET", "/v1/agents/{}/live-sessions", None),
    ("GET", "/v1/executions/claimable?agent={}", None),
]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [*OF_A_MESSAGE, *OF_AN_EXECUTION, *OF_AN_AGENT],
)
async def test_what_is_somebody_elses_looks_like_what_is_not_there(
    rig: Rig, method: str, path: str, body: Json | None
) -> None:
    sent = await rig.max.send("helper")
    names = [sent["id"], f"msg_{NOWHERE}"]
    if (method, path, body) in OF_AN_EXECUTION:
        names = [sent["execution_id"], f"exec_{NOWHERE}"]
    elif (method, path, body) in OF_AN_AGENT:
        names = [sent["to"]["agent_id"], "helper@max", "agent_000000000000", "nobody@nowhere"]

    async with nothing_stored(rig):
        answers = [await rig.eve.call(method, path.format(name), json=body) for name in names]

    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1


async def test_a_foreign_key_looks_like_none(rig: Rig) -> None:
    async with nothing_stored(rig):
        foreign = await rig.eve.call("DELETE", f"/v1/keys/{rig.max.key_id}")
        absent = await rig.eve.call("DELETE", "/v1/keys/000000000000")

    assert_refused(absent, 404, "key_not_found")
    assert foreign.content == absent.content
