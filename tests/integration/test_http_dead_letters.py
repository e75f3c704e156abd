"""Dead letters over HTTP: listed with their traces, surveyed, redriven and discarded, each by who may."""

from collections.abc import AsyncIterator

import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Caller, Json, Rig, code_of, expect, running_rig

TO_NOBODY: Json = {"delivery_mode": "live", "live_fallback_mode": "none"}
"""Forced live without a session: the message ends at once."""
NO_SESSION = "live_unclaimed_no_session"


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("mac", "live", "inbox")
        yield running


async def dead(caller: Caller, to: str = "mac", n: int = 1) -> list[Json]:
    """Messages that end at once, oldest first."""
    return [await caller.send(to, f"number {number}", **TO_NOBODY) for number in range(n)]


async def listed(rig: Rig, **asked: object) -> list[str]:
    return [each["id"] for each in (await rig.max.get("/v1/dead-letters", **asked))["dead_letters"]]


async def test_a_dead_letter_is_listed_with_its_reason_its_attempts_its_last_error_and_its_trace(rig: Rig) -> None:
    await rig.max.agent("worker", "bg", "inbox")
    sent = await rig.max.send("worker", delivery_mode="bg")
    path = f"/v1/executions/{sent['execution_id']}"
    await rig.max.post(f"{path}/claim", {"worker_id": "w"})
    await rig.max.post(f"{path}/release", {"lease": 1, "reason": "exit_code", "detail": "exit 7"})
    await rig.max.send("worker", delivery_mode="bg")
    [nobody] = await dead(rig.max)
    [told] = (await rig.max.get("/v1/dead-letters"))["dead_letters"]
    assert (told["id"], told["state"], told["reason"]) == (nobody["id"], NO_SESSION, "no_session_attached")
    assert (told["attempts"], told["last_error"], told["terminal"]) == (0, None, True)
    assert told["trace"] == nobody["trace"] != []


async def test_pages_follow_each_other_newest_first_and_miss_nothing(rig: Rig) -> None:
    sent = [each["id"] for each in await dead(rig.max, n=5)]
    seen, more = list[str](), dict[str, str]()
    while True:
        page = await rig.max.get("/v1/dead-letters", limit=2, **more)
        seen += [each["id"] for each in page["dead_letters"]]
        if page["next_cursor"] is None:
            break
        more = {"cursor": page["next_cursor"]}
    assert seen == sent[::-1]
    assert await rig.max.get("/v1/dead-letters", count_only=True) == {"count": 5, "is_exact": True}


async def test_a_filter_takes_what_fits_all_of_it(rig: Rig) -> None:
    await rig.max.agent("desk", "live")
    [at_mac], [at_desk] = await dead(rig.max), await dead(rig.max, "desk")
    assert await listed(rig, agent="desk") == [at_desk["id"]]
    assert await listed(rig, agent="mac", state=NO_SESSION, reason="no_session_attached") == [at_mac["id"]]
    assert await listed(rig, reason="ttl_passed") == []
    assert await listed(rig, state="expired,bg_exhausted") == []
    assert await listed(rig, until=at_mac["ended_at"]) == [at_mac["id"]]
    assert at_desk["id"] in await listed(rig, since=at_desk["ended_at"])
    assert await listed(rig, channel="inbox") == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"state": "in_inbox"}, "invalid_enum"),
        ({"state": "cancelled"}, "invalid_enum"),
        ({"reason": "bored"}, "invalid_enum"),
        ({"since": "yesterday"}, "invalid_format"),
        ({"channel": "fax"}, "invalid_enum"),
        ({"cursor": "xx"}, "invalid_cursor"),
        ({"limit": "101"}, "out_of_range"),
    ],
)
async def test_a_filter_there_cannot_be_is_refused(rig: Rig, query: Json, code: str) -> None:
    assert code_of(await rig.max.call("GET", "/v1/dead-letters", params=query)) == code


async def test_what_was_delivered_cancelled_or_still_waits_is_no_dead_letter(rig: Rig) -> None:
    acked, cancelled, waits = [await rig.max.send("mac", delivery_mode="inbox") for _ in range(3)]
    await rig.max.post(f"/v1/messages/{acked['id']}/ack")
    await rig.max.post(f"/v1/messages/{cancelled['id']}/cancel")
    assert await listed(rig) == []
    for sent, code in ((acked, "not_a_dead_letter"), (cancelled, "not_a_dead_letter"), (waits, "execution_in_flight")):
        assert code_of(await rig.max.call("POST", f"/v1/messages/{sent['id']}/redrive")) == code
        refused = await rig.max.call("POST", f"/v1/messages/{sent['id']}/discard", json={"reason": "x"})
        assert code_of(refused) == "not_a_dead_letter"


async def test_a_failed_delivery_is_chosen_by_name_only_and_may_be_redriven_but_not_discarded(rig: Rig) -> None:
    failed, succeeded = [await rig.max.send("mac", delivery_mode="inbox") for _ in range(2)]
    for sent, success in ((failed, False), (succeeded, True)):
        await rig.max.post(f"/v1/executions/{sent['execution_id']}/outcome", {"success": success})
    assert await listed(rig) == []
    assert await listed(rig, state="delivered") == [failed["id"]]
    discarded = await rig.max.call("POST", f"/v1/messages/{failed['id']}/discard", json={"reason": "x"})
    assert code_of(discarded) == "not_a_dead_letter"
    again = await rig.max.post(f"/v1/messages/{failed['id']}/redrive", status=201)
    assert again["state"] == "in_inbox"


async def test_a_redrive_asks_the_gates_again_and_is_a_new_execution_of_the_same_message(rig: Rig) -> None:
    [sent] = await dead(rig.max)
    refused = await rig.max.call("POST", f"/v1/messages/{sent['id']}/redrive")
    assert code_of(refused) == "redrive_refused"
    assert refused.json()["error"]["reason"] == "no_session_attached"
    assert refused.json()["error"]["trace"]
    assert len((await rig.max.get(f"/v1/executions/{sent['id']}"))["events"]) == 1
    await rig.max.session("mac")
    again = await rig.max.post(f"/v1/messages/{sent['id']}/redrive", status=201)
    assert (again["id"], again["execution_id"]) == (sent["id"], f"{sent['execution_id']}r2")
    assert (again["state"], again["effective_delivery_mode"]) == ("offered", "live")
    assert [gate["verdict"] for gate in again["trace"]] != [gate["verdict"] for gate in sent["trace"]]
    assert await listed(rig) == []
    assert code_of(await rig.max.call("POST", f"/v1/messages/{sent['id']}/redrive")) == "execution_in_flight"


async def test_a_redrive_is_refused_as_a_message_would_be(rig: Rig) -> None:
    [sent] = await dead(rig.max)
    await rig.max.patch("/v1/agents/mac", {"status": "inactive"})
    refused = await rig.max.call("POST", f"/v1/messages/{sent['id']}/redrive")
    assert (refused.status_code, code_of(refused)) == (409, "agent_inactive")


async def test_a_discarded_message_says_why_and_by_whom_and_is_gone_from_the_list(rig: Rig) -> None:
    [sent] = await dead(rig.max)
    path = f"/v1/messages/{sent['id']}/discard"
    body = {"reason": "The customer has called."}
    for told in (await rig.max.post(path, body), await rig.max.post(path, body)):
        assert (told["state"], told["reason"], told["terminal"]) == ("discarded", "discarded_by_receiver", True)
        assert told["discarded"]["reason"] == "The customer has called."
        assert told["discarded"]["by"] == f"key:{rig.max.key_id}"
        assert told["ended_at"] == sent["ended_at"]
    receipts = (await rig.max.get(f"/v1/messages/{sent['id']}/receipts"))["receipts"]
    assert [each["stage"] for each in receipts][-2:] == ["ended", "discarded"]
    assert await listed(rig) == []
    assert code_of(await rig.max.call("POST", f"/v1/messages/{sent['id']}/redrive")) == "not_a_dead_letter"


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "two\nlines", None])
async def test_a_discard_needs_a_reason_somebody_can_read(rig: Rig, reason: str | None) -> None:
    [sent] = await dead(rig.max)
    body = {} if reason is None else {"reason": reason}
    answer = await rig.max.call("POST", f"/v1/messages/{sent['id']}/discard", json=body)
    assert answer.status_code == 422
    assert await listed(rig) == [sent["id"]]


async def test_many_are_discarded_by_filter_or_by_name_and_what_cannot_be_is_counted(rig: Rig) -> None:
    first, second, third = await dead(rig.max, n=3)
    waits = await rig.max.send("mac", delivery_mode="inbox")
    by_name = {"message_ids": [first["id"], waits["id"], f"msg_{'0' * 26}"], "reason": "late"}
    assert await rig.max.post("/v1/dead-letters/discard", by_name) == {
        "discarded": 1,
        "refused": 2,
        "refused_by_code": {"not_a_dead_letter": 1, "message_not_found": 1},
        "has_more": False,
    }
    assert await listed(rig) == [third["id"], second["id"]]
    rest = await rig.max.post("/v1/dead-letters/discard", {"filter": {"agent": "mac"}, "reason": "late"})
    assert (rest["discarded"], rest["has_more"], await listed(rig)) == (2, False, [])


async def test_a_dry_run_counts_and_asks_the_gates_and_stores_nothing(rig: Rig) -> None:
    await rig.max.agent("desk", "live")
    await rig.max.session("desk")
    await rig.max.delete("/v1/agents/desk/live-sessions/main")
    at_mac, at_desk = await dead(rig.max, n=3), await dead(rig.max, "desk", n=2)
    await rig.max.session("mac")
    told = await rig.max.post("/v1/dead-letters/redrive", {"filter": {}, "dry_run": True})
    assert (told["dry_run"], told["matched"], told["matched_is_exact"], told["left_out"]) == (True, 5, True, 0)
    assert [(each["slug"], each["state"], each["count"]) for each in told["by"]] == [
        ("mac", NO_SESSION, 3),
        ("desk", NO_SESSION, 2),
    ]
    verdicts = {each["agent_id"]: (each["would"], each["reason"]) for each in told["samples"]}
    assert verdicts == {
        at_mac[0]["to"]["agent_id"]: ("redrive", "ok"),
        at_desk[0]["to"]["agent_id"]: ("refuse", "no_session_attached"),
    }
    assert all(each["trace"] for each in told["samples"])
    assert (await rig.max.get("/v1/redrives"))["redrives"] == []
    for sent in (*at_mac, *at_desk):
        assert len((await rig.max.get(f"/v1/executions/{sent['id']}"))["events"]) == 1


async def test_a_redrive_is_remembered_with_what_was_asked_and_can_be_cancelled(rig: Rig) -> None:
    await dead(rig.max, n=2)
    wish = {"filter": {"agent": "mac", "states": [NO_SESSION]}, "rate_per_s": 10}
    made = await rig.max.post("/v1/dead-letters/redrive", wish, status=202)
    assert (made["state"], made["matched"], made["done"], made["rate_per_s"]) == ("running", 2, 0, 10)
    assert made["filter"]["states"] == [NO_SESSION]
    assert await rig.max.get(f"/v1/redrives/{made['id']}") == made
    assert (await rig.max.get("/v1/redrives"))["redrives"] == [made]
    for _ in range(2):
        assert (await rig.max.post(f"/v1/redrives/{made['id']}/cancel"))["state"] == "cancelling"
    assert (await rig.admin.get(f"/v1/redrives/{made['id']}"))["state"] == "cancelling"


async def test_a_redrive_of_named_messages_takes_those_that_are_dead_letters_of_ones_own(rig: Rig) -> None:
    [mine] = await dead(rig.max)
    waits = await rig.max.send("mac", delivery_mode="inbox")
    await rig.eve.agent("hers", "live")
    [foreign] = await dead(rig.eve, "hers")
    named = {"message_ids": [mine["id"], waits["id"], foreign["id"]]}
    told = await rig.max.post("/v1/dead-letters/redrive", named | {"dry_run": True})
    assert (told["matched"], told["left_out"]) == (1, 2)
    made = await rig.max.post("/v1/dead-letters/redrive", named, status=202)
    assert (made["named"], made["matched"], made["filter"]) == (1, 1, None)


async def test_only_so_many_redrives_are_under_way_at_once(rig: Rig) -> None:
    for _ in range(4):
        await rig.max.post("/v1/dead-letters/redrive", {"filter": {}}, status=202)
    one_more = await rig.max.call("POST", "/v1/dead-letters/redrive", json={"filter": {}})
    assert (one_more.status_code, code_of(one_more)) == (429, "too_many_redrives")
    await rig.eve.post("/v1/dead-letters/redrive", {"filter": {}}, status=202)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"filter": {}, "message_ids": [f"msg_{'0' * 26}"]},
        {"message_ids": []},
        {"message_ids": ["msg_x"]},
        {"message_ids": [f"msg_{'0' * 26}"] * 2},
        {"message_ids": [f"msg_{number:026}" for number in range(1_001)]},
        {"filter": {"states": ["cancelled"]}},
        {"filter": {"reasons": ["bored"]}},
        {"filter": {"owner": "eve"}},
        {"filter": {}, "rate_per_s": 0},
        {"filter": {}, "rate_per_s": 501},
    ],
)
async def test_a_redrive_there_cannot_be_is_refused_and_nothing_is_begun(rig: Rig, body: Json) -> None:
    answer = await rig.max.call("POST", "/v1/dead-letters/redrive", json=body)
    assert answer.status_code == 422, answer.text
    assert (await rig.max.get("/v1/redrives"))["redrives"] == []


async def test_the_sender_sees_its_own_among_what_it_sent_and_may_redrive_but_not_discard_it(rig: Rig) -> None:
    await rig.max.patch("/v1/agents/mac", {"external_addressable": True})
    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)
    [sent] = await dead(rig.eve, "mac@max")
    assert (await rig.eve.get("/v1/dead-letters"))["dead_letters"] == []
    assert await listed(rig) == [sent["id"]]
    discarded = await rig.eve.call("POST", f"/v1/messages/{sent['id']}/discard", json={"reason": "x"})
    assert code_of(discarded) == "message_not_found"
    assert expect(200, await rig.eve.call("GET", f"/v1/messages/{sent['id']}"))["state"] == NO_SESSION
    await rig.max.session("mac")
    assert (await rig.eve.post(f"/v1/messages/{sent['id']}/redrive", status=201))["state"] == "offered"


@pytest.mark.parametrize("path", ["/v1/messages/{id}/redrive", "/v1/executions/{id}/replay"])
async def test_a_sender_whose_grant_was_withdrawn_delivers_nothing_once_more(rig: Rig, path: str) -> None:
    await rig.max.patch("/v1/agents/mac", {"external_addressable": True})
    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)
    [sent] = await dead(rig.eve, "mac@max")
    await rig.max.session("mac")
    await rig.max.delete("/v1/grants/eve", status=204)
    refused = await rig.eve.call("POST", path.format(id=sent["id"]))
    assert (refused.status_code, code_of(refused)) == (404, "agent_not_found")
    assert (await rig.eve.get(f"/v1/messages/{sent['id']}"))["state"] == NO_SESSION
    expect(201, await rig.max.call("POST", path.format(id=sent["id"])))


async def test_dead_letters_are_counted_by_how_they_died(rig: Rig) -> None:
    await dead(rig.max, n=3)
    await rig.max.send("mac", delivery_mode="inbox")
    text = (await rig.nobody.call("GET", "/metrics")).text
    line = f'postroom_dead_letters_total{{reason="no_session_attached",state="{NO_SESSION}"}} 3.0'
    assert line in text.splitlines()
