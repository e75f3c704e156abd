"""Sending to somebody else's agents: by grant only, directed, and taken back at once."""

from collections.abc import AsyncIterator

import anyio
import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Caller, Rig, code_of, running_rig

MESSAGE = {"message": "May I?"}


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("helper", "inbox", "bg", external_addressable=True)
        await running.max.agent("private")
        await running.eve.agent("bot")
        yield running


async def answer(caller: Caller, to: str) -> tuple[int, bytes]:
    response = await caller.call("POST", "/v1/messages", json={"to": to, **MESSAGE})
    return response.status_code, response.content


async def test_a_grant_opens_the_addressable_agents_and_no_others(rig: Rig) -> None:
    open_agent = await rig.max.get("/v1/agents/helper")
    assert open_agent["external_addressable"] is True
    absent = await answer(rig.eve, "nobody@max")
    assert await answer(rig.eve, "helper@max") == absent
    assert await answer(rig.eve, open_agent["id"]) == absent

    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)

    for reference in ("helper@max", open_agent["id"]):
        sent = await rig.eve.send(reference)
        assert (sent["to"]["agent_id"], sent["from"]["owner"]) == (open_agent["id"], "eve")
    private = await rig.max.get("/v1/agents/private")
    for reference in ("private@max", private["id"], "nobody@max", "agent_000000000000"):
        assert await answer(rig.eve, reference) == absent
    assert await answer(rig.eve, "helper") == absent


async def test_a_grant_is_directed(rig: Rig) -> None:
    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)
    await rig.eve.patch("/v1/agents/bot", {"external_addressable": True})
    assert (await answer(rig.max, "bot@eve"))[0] == 404


async def test_an_inactive_agent_is_not_there_for_others(rig: Rig) -> None:
    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)
    await rig.max.patch("/v1/agents/helper", {"status": "inactive"})
    assert await answer(rig.eve, "helper@max") == await answer(rig.eve, "nobody@max")
    assert code_of(await rig.max.call("POST", "/v1/messages", json={"to": "helper", **MESSAGE})) == "agent_inactive"


async def test_a_withdrawn_grant_and_a_closed_agent_count_within_two_seconds(rig: Rig) -> None:
    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)
    await rig.eve.send("helper@max")
    await rig.max.patch("/v1/agents/helper", {"external_addressable": False})
    await until_refused(rig)
    await rig.max.patch("/v1/agents/helper", {"external_addressable": True})
    await rig.eve.send("helper@max")
    await rig.max.delete("/v1/grants/eve", status=204)
    await until_refused(rig)


async def until_refused(rig: Rig) -> None:
    with anyio.fail_after(2):
        while (await answer(rig.eve, "helper@max"))[0] != 404:
            await anyio.sleep(0.05)


async def test_the_sender_may_read_and_cancel_and_nothing_else(rig: Rig) -> None:
    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)
    sent = await rig.eve.send("helper@max", delivery_mode="bg")
    message, execution = f"/v1/messages/{sent['id']}", f"/v1/executions/{sent['execution_id']}"

    refused = [
        await rig.eve.call("POST", f"{execution}/claim", json={"worker_id": "w"}),
        await rig.eve.call("POST", f"{execution}/outcome", json={"success": True}),
        await rig.eve.call("POST", f"{message}/read"),
        await rig.eve.call("POST", f"{message}/ack"),
        await rig.eve.call("GET", "/v1/agents/helper@max/inbox"),
        await rig.eve.call("GET", "/v1/agents/helper@max"),
        await rig.eve.call("PATCH", "/v1/agents/helper@max", json={"status": "inactive"}),
    ]

    assert [each.status_code for each in refused] == [404] * len(refused)
    assert (await rig.eve.get(message))["state"] == "queued"
    assert (await rig.eve.post(f"{message}/cancel"))["state"] == "cancelled"
    assert (await rig.max.get(message))["state"] == "cancelled"


async def test_both_sides_see_the_message_in_their_lists(rig: Rig) -> None:
    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)
    bot = await rig.eve.get("/v1/agents/bot")
    headers = {"X-Postroom-From-Agent": "bot"}
    body = {"to": "helper@max", "delivery_mode": "inbox", **MESSAGE}
    sent = await rig.eve.post("/v1/messages", body, status=201, headers=headers)

    [theirs] = (await rig.eve.get("/v1/agents/bot/sent"))["messages"]
    [ours] = (await rig.max.get("/v1/agents/helper/inbox", counterpart=bot["id"]))["messages"]
    threads = [await each.get(f"/v1/threads/{sent['id']}") for each in (rig.eve, rig.max)]

    assert theirs["id"] == ours["id"] == sent["id"]
    assert [page["messages"][0]["id"] for page in threads] == [sent["id"]] * 2
    assert (await rig.max.send("helper", reply_to=sent["id"]))["thread_id"] == sent["id"]


async def test_where_a_message_would_go_is_told_as_far_as_it_may_be_sent(rig: Rig) -> None:
    refused = await rig.eve.call("POST", "/v1/route", json={"to": "helper@max"})
    assert refused.status_code == 404
    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)
    assert (await rig.eve.post("/v1/route", {"to": "helper@max"}))["to"]["owner"] == "max"


async def test_grants_are_given_once_listed_and_withdrawn(rig: Rig) -> None:
    first = await rig.max.post("/v1/grants", {"owner": "zoe"}, status=201)
    again = await rig.max.post("/v1/grants", {"owner": "zoe"})
    await rig.max.post("/v1/grants", {"owner": "adam"}, status=201)

    assert again == first
    assert [each["owner"] for each in (await rig.max.get("/v1/grants"))["grants"]] == ["adam", "zoe"]
    assert (await rig.eve.get("/v1/grants"))["grants"] == []
    await rig.max.delete("/v1/grants/zoe", status=204)
    assert code_of(await rig.max.call("DELETE", "/v1/grants/zoe")) == "grant_not_found"
    assert code_of(await rig.max.call("DELETE", "/v1/grants/*")) == "grant_not_found"
    assert await rig.max.post("/v1/grants", {"owner": "zoe"}, status=201)
    own = await rig.max.call("POST", "/v1/grants", json={"owner": "max"})
    assert (own.status_code, code_of(own)) == (422, "own_owner")
