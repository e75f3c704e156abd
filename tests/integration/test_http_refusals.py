"""Bad requests over HTTP: each gets its code, none of them stores anything, and none is ever a 500."""

from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.middleware import MAX_BODY_BYTES
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Rig, code_of, running_rig

GOOD = b'{"to": "helper", "message": "x"}'
JSON = {"content-type": "application/json"}


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("helper")
        yield running


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/route", "/v1/agents"])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json_object"),
        (b"[]", 400, "invalid_json_object"),
        (b"{", 400, "invalid_json"),
        (GOOD + b"x", 400, "invalid_json"),
        (b"\xef\xbb\xbf" + GOOD, 400, "invalid_encoding"),
        (GOOD.decode().encode("utf-16"), 400, "invalid_encoding"),
        (b'{"to": "helper", "to": "helper"}', 400, "duplicate_key"),
        (b'{"a": NaN}', 400, "invalid_number"),
        (b'{"a": %s}' % (b"9" * 4_000), 400, "number_out_of_range"),
        (b'{"a":' + b"[" * 60_000, 400, "too_deep"),
        (b'{"a": [%s]}' % b",".join([b"1"] * 20_000), 413, "too_many_elements"),
        (b'{"to": "\\ud800"}', 422, "invalid_unicode"),
        (b'{"from": "x"}', 422, None),
    ],
)
async def test_a_body_that_cannot_be_is_refused_on_every_route(
    rig: Rig, path: str, body: bytes, status: int, code: str | None
) -> None:
    answer = await rig.max.call("POST", path, content=body, headers=JSON)

    assert (answer.status_code, code or code_of(answer)) == (status, code_of(answer))


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/agents"])
@pytest.mark.parametrize("media", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_only_json_is_read(rig: Rig, path: str, media: str | None) -> None:
    answer = await rig.max.call("POST", path, content=GOOD, headers={"content-type": media} if media else {})

    assert (answer.status_code, code_of(answer)) == (415, "unsupported_media_type")


async def test_a_charset_beside_json_is_json(rig: Rig) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}

    assert (await rig.max.call("POST", "/v1/messages", content=GOOD, headers=headers)).status_code == 201


async def test_a_compressed_body_is_refused(rig: Rig) -> None:
    answer = await rig.max.call("POST", "/v1/messages", content=GOOD, headers={**JSON, "content-encoding": "gzip"})

    assert (answer.status_code, code_of(answer)) == (415, "unsupported_encoding")


async def chunks(total: int) -> AsyncIterator[bytes]:
    for _ in range(total // 1024):
        yield b" " * 1024
    yield b" " * (total % 1024)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/agents"])
async def test_a_byte_too_many_is_too_many_announced_or_not(rig: Rig, path: str) -> None:
    whole = await rig.max.call("POST", path, content=b" " * (MAX_BODY_BYTES + 1), headers=JSON)
    streamed = await rig.max.call("POST", path, content=chunks(MAX_BODY_BYTES + 1), headers=JSON)
    exact = await rig.max.call("POST", path, content=chunks(MAX_BODY_BYTES), headers=JSON)

    assert [whole.status_code, streamed.status_code] == [413, 413]
    assert code_of(whole) == code_of(streamed) == "payload_too_large"
    assert whole.headers["connection"] == streamed.headers["connection"] == "close"
    assert code_of(exact) == "invalid_json_object"


@pytest.mark.parametrize("to", ["", " ", "a@b@c", "agent_ZZ!", "a*", "x" * 10_000])
async def test_what_is_no_address_is_refused_in_body_and_path(rig: Rig, to: str) -> None:
    sent = await rig.max.call("POST", "/v1/messages", json={"to": to, "message": "x"})

    assert (sent.status_code, code_of(sent)) == (422, "invalid_address")
    assert sent.json()["error"]["field"] == "to"
    assert len(to) < 5 or to not in sent.text


async def test_an_address_in_a_path_is_checked_too(rig: Rig) -> None:
    answer = await rig.max.call("GET", "/v1/agents/Not_An_Address")

    assert (answer.status_code, code_of(answer)) == (422, "invalid_address")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "Bearer")],
        [("authorization", "Bearer nonsense")],
        [("authorization", "Basic bWF4OngK")],
        [("authorization", "Bearer " + "x" * 10_000)],
        [("authorization", "Bearer {changed}")],
        [("authorization", "Bearer {unknown}")],
        [("authorization", "Bearer {good}"), ("authorization", "Bearer {good}")],
    ],
)
async def test_whatever_is_wrong_with_a_key_the_answer_is_the_same(rig: Rig, headers: list[tuple[str, str]]) -> None:
    good = rig.max.key
    changed = good[:20] + ("a" if good[20] != "a" else "b") + good[21:]
    unknown = "pr_" + "0" * 12 + good[15:]
    filled = [(name, value.format(good=good, changed=changed, unknown=unknown)) for name, value in headers]

    answers = [
        await rig.http.request(method, path, headers=filled)
        for method, path in (("GET", "/v1/auth/me"), ("POST", "/v1/messages"), ("GET", "/v1/agents/helper"))
    ]

    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert code_of(answers[0]) == "invalid_credentials"
    assert answers[0].headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("query", ["api_key=x", "access_token=x", "a=1&token=x", "x={key}"])
async def test_a_key_in_the_url_is_pointed_out_even_beside_a_good_one(rig: Rig, query: str) -> None:
    answer = await rig.max.call("GET", f"/v1/auth/me?{query.format(key=rig.max.key)}")

    assert (answer.status_code, code_of(answer)) == (400, "credentials_in_url")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/v1/agents/", 404, "not_found"),
        ("GET", "//v1/agents", 404, "not_found"),
        ("GET", "/v1/agents/a%2fb", 404, "not_found"),
        ("HEAD", "/v1/auth/me", 405, None),
        ("OPTIONS", "/v1/messages", 405, "method_not_allowed"),
        ("TRACE", "/v1/agents", 405, "method_not_allowed"),
        ("GET", "/v1/messages", 405, "method_not_allowed"),
        ("PUT", "/v1/agents/helper", 405, "method_not_allowed"),
    ],
)
async def test_paths_and_methods_there_are_not(rig: Rig, method: str, path: str, status: int, code: str | None) -> None:
    answer = await rig.max.call(method, path, headers={"X-HTTP-Method-Override": "DELETE"})

    assert answer.status_code == status
    assert code is None or code_of(answer) == code
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages/msg_nonsense",
        "/v1/messages/MSG_01jx5k9v3m7q2w8r4t6y0zacde",
        "/v1/messages/msg_01jx5k9v3m7q2w8r4t6y0zacde",
        "/v1/executions/exec_01jx5k9v3m7q2w8r4t6y0zacde",
        "/v1/executions/x.y",
        "/v1/executions/%2e%2e",
        "/v1/executions/exec_>",
    ],
)
async def test_ids_nobody_minted_are_not_found(rig: Rig, path: str) -> None:
    answer = await rig.max.call("GET", path)

    assert answer.status_code == 404
    assert code_of(answer) in {"message_not_found", "execution_not_found"}


@pytest.mark.parametrize("query", ["limit=0", "limit=1000000000", "limit=x", "limit=-1", "state=lost", "channel=mail"])
async def test_a_question_that_cannot_be_is_refused(rig: Rig, query: str) -> None:
    assert (await rig.max.call("GET", f"/v1/executions?{query}")).status_code == 422


async def test_a_cursor_belongs_to_its_list_and_its_caller(rig: Rig) -> None:
    for _ in range(2):
        await rig.max.send("helper")
    cursor = (await rig.max.get("/v1/executions", limit=1))["next_cursor"]
    await rig.eve.agent("helper")

    wrong = [
        await rig.max.call("GET", "/v1/executions", params={"cursor": cursor[:-1] + "x"}),
        await rig.max.call("GET", "/v1/executions", params={"cursor": cursor, "state": "in_inbox"}),
        await rig.max.call("GET", "/v1/executions", params={"cursor": "%%%"}),
        await rig.max.call("GET", "/v1/agents/helper/inbox", params={"cursor": cursor}),
        await rig.eve.call("GET", "/v1/executions", params={"cursor": cursor}),
    ]

    assert {(each.status_code, code_of(each)) for each in wrong} == {(400, "invalid_cursor")}
    assert len((await rig.max.get("/v1/executions", limit=1, cursor=cursor))["executions"]) == 1


async def test_a_bug_is_a_500_that_tells_nothing_but_its_number(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("s3cr3t detail")

    monkeypatch.setattr(rig.gateway.parts.service, "find_message", broken)

    answer: httpx.Response = await rig.max.call("GET", "/v1/messages/msg_01jx5k9v3m7q2w8r4t6y0zacde")

    assert (answer.status_code, code_of(answer)) == (500, "internal_error")
    assert "s3cr3t" not in answer.text
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]


async def test_refusals_are_counted_by_code(rig: Rig) -> None:
    await rig.max.call("GET", "/v1/agents/nobody")

    text = (await rig.http.get("/metrics")).text

    assert 'postroom_refused_total{code="agent_not_found"} 1.0' in text
    assert 'route="/v1/agents/{ref}",status="404"' in text
