"""Threads and filtered lists, over HTTP and in the projection beneath."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from contracts.ids import encode_ulid, message_id
from contracts.words import Channel, State
from gateway.ports import ANYBODY, Query
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, code_of, running_rig
from tests.redis_rows import AGENT, OWNER, Store, row, running_store

INBOX = "/v1/agents/helper/inbox"


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("helper")
        await running.max.agent("writer")
        yield running


@pytest.fixture
async def store(redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Store]:
    async with running_store(redis_server.url, prefix) as running:
        yield running


async def send(rig: Rig, sender: str, to: str, **more: Any) -> Json:
    headers = {"X-Postroom-From-Agent": sender}
    return await rig.max.post("/v1/messages", {"to": to, "message": "x", **more}, status=201, headers=headers)


def ids_of(page: Json) -> list[str]:
    return [each["id"] for each in page["messages"]]


async def conversation(rig: Rig) -> list[Json]:
    """Four messages of one thread, and one of another."""
    first = await send(rig, "writer", "helper")
    second = await send(rig, "helper", "writer", reply_to=first["id"])
    await send(rig, "writer", "helper")
    third = await send(rig, "writer", "helper", reply_to=second["id"])
    fourth = await send(rig, "helper", "writer", reply_to=first["id"])
    return [first, second, third, fourth]


# --- threads -------------------------------------------------------------------------------------------------------


async def test_a_thread_is_read_in_the_order_of_its_messages_page_by_page(rig: Rig) -> None:
    sent = [each["id"] for each in await conversation(rig)]
    path = f"/v1/threads/{sent[0]}"

    whole = await rig.max.get(path)
    first = await rig.max.get(path, limit=3)
    rest = await rig.max.get(path, limit=3, cursor=first["next_cursor"])

    assert (ids_of(whole), whole["next_cursor"], whole["thread_id"]) == (sent, None, sent[0])
    assert ids_of(first) + ids_of(rest) == sent
    assert rest["next_cursor"] is None


async def test_a_message_nobody_has_answered_is_a_thread_of_one(rig: Rig) -> None:
    sent = await rig.max.send("helper")
    page = await rig.max.get(f"/v1/threads/{sent['id']}", limit=1)
    assert ids_of(page) == [sent["id"]]


async def test_an_admin_key_reads_every_thread(rig: Rig) -> None:
    sent = [each["id"] for each in await conversation(rig)]
    assert ids_of(await rig.admin.get(f"/v1/threads/{sent[0]}")) == sent


async def test_somebody_elses_thread_looks_like_none(rig: Rig) -> None:
    sent = await conversation(rig)
    absent = ("msg_00000000000000000000000000", "nonsense", sent[1]["id"])
    answers = [await rig.eve.call("GET", f"/v1/threads/{each}") for each in (sent[0]["id"], *absent)]
    assert {(answer.status_code, answer.content) for answer in answers} == {(404, answers[0].content)}
    assert code_of(answers[0]) == "thread_not_found"


async def test_a_cursor_belongs_to_its_thread(rig: Rig) -> None:
    sent = await conversation(rig)
    other = await rig.max.send("helper")
    page = await rig.max.get(f"/v1/threads/{sent[0]['id']}", limit=1)
    answer = await rig.max.call("GET", f"/v1/threads/{other['id']}", params={"cursor": page["next_cursor"]})
    assert code_of(answer) == "invalid_cursor"


# --- filters -------------------------------------------------------------------------------------------------------


async def test_an_inbox_is_filtered_by_counterpart_in_every_form(rig: Rig) -> None:
    agent = await rig.max.agent("third")
    await send(rig, "writer", "helper")
    wanted = await send(rig, "third", "helper")
    for reference in ("third", "third@max", agent["id"], agent["id"].replace("agent_", "agt_")):
        assert ids_of(await rig.max.get(INBOX, counterpart=reference)) == [wanted["id"]]
    assert (await rig.max.get(INBOX, counterpart="third", count_only=True)) == {"count": 1}
    assert ids_of(await rig.max.get("/v1/agents/third/sent", counterpart="helper")) == [wanted["id"]]
    assert ids_of(await rig.max.get("/v1/agents/third/sent", counterpart="writer")) == []


async def test_an_inbox_is_filtered_by_thread(rig: Rig) -> None:
    sent = await conversation(rig)
    thread = sent[0]["id"]
    assert ids_of(await rig.max.get(INBOX, thread_id=thread)) == [sent[0]["id"], sent[2]["id"]]
    assert ids_of(await rig.max.get("/v1/agents/helper/sent", thread_id=thread)) == [sent[3]["id"], sent[1]["id"]]
    lonely = await rig.max.send("helper")
    assert ids_of(await rig.max.get(INBOX, thread_id=lonely["id"])) == [lonely["id"]]


async def test_an_inbox_is_filtered_by_priority_and_by_instant(rig: Rig) -> None:
    low = await rig.max.send("helper", priority=1)
    usual = await rig.max.send("helper")
    high = await rig.max.send("helper", priority=4)
    assert ids_of(await rig.max.get(INBOX, priority="1,4")) == [low["id"], high["id"]]
    later = await rig.max.get(INBOX, since=low["accepted_at"])
    assert low["id"] not in ids_of(later)
    assert ids_of(await rig.max.get(INBOX, since=high["accepted_at"])) == []
    assert ids_of(await rig.max.get(INBOX, priority="3", since="2020-01-01T00:00:00Z")) == [usual["id"]]


async def test_what_was_sent_is_filtered_by_state_in_both_vocabularies(rig: Rig) -> None:
    kept = await send(rig, "writer", "helper")
    gone = await send(rig, "writer", "helper")
    await rig.max.post(f"/v1/messages/{gone['id']}/cancel")
    for state, found in (("queued", kept), ("in_inbox", kept), ("failed", gone), ("cancelled", gone)):
        assert ids_of(await rig.max.get("/v1/agents/writer/sent", state=state)) == [found["id"]], state


@pytest.mark.parametrize(
    ("filters", "status", "code", "field"),
    [
        ({"counterpart": "No Agent"}, 422, "invalid_address", "counterpart"),
        ({"counterpart": "nobody"}, 404, "agent_not_found", None),
        ({"thread_id": "x"}, 422, "invalid_format", "thread_id"),
        ({"since": "yesterday"}, 422, "invalid_format", "since"),
        ({"priority": "6"}, 422, "invalid_enum", "priority"),
    ],
)
async def test_a_filter_that_cannot_be_is_refused(
    rig: Rig, filters: dict[str, str], status: int, code: str, field: str | None
) -> None:
    for path in (INBOX, "/v1/agents/helper/sent"):
        answer = await rig.max.call("GET", path, params=filters)
        assert (answer.status_code, code_of(answer), answer.json()["error"].get("field")) == (status, code, field)


# --- the projection ------------------------------------------------------------------------------------------------

THREAD = message_id(encode_ulid(1))


async def found(store: Store, owner: str = OWNER, **question: Any) -> list[str]:
    query = Query(**{"owner": owner, "thread": THREAD, "either_side": True, "oldest_first": True, **question})
    return [view.decode() for view in (await store.queries.page(query)).views]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (3, 2, 1), (2, 3, 1)])
async def test_a_thread_is_complete_in_whatever_order_its_rows_arrive(store: Store, order: tuple[int, ...]) -> None:
    for number in order:
        await store.write(row(number, thread=THREAD))
    await store.write(row(4))
    assert await found(store) == ["1@1", "2@2", "3@3"]
    assert await found(store, oldest_first=False) == ["3@3", "2@2", "1@1"]


async def test_a_thread_shows_each_owner_what_he_sent_or_received(store: Store) -> None:
    await store.write(
        row(1), row(2, thread=THREAD, owner="zoe"), row(3, thread=THREAD, owner="zoe", sender_owner="zoe")
    )
    assert await found(store) == ["1@1", "2@2"]
    assert await found(store, "zoe") == ["2@2", "3@3"]
    assert await found(store, "eve") == []
    assert await found(store, ANYBODY) == ["1@1", "2@2", "3@3"]


async def test_a_thread_of_one_goes_on_behind_its_cursor_with_nothing(store: Store) -> None:
    await store.write(row(1))
    assert await found(store) == ["1@1"]
    assert await found(store, after=1) == []
    assert await found(store, thread=message_id(encode_ulid(9))) == []


async def test_a_count_within_a_thread_looks_at_every_filter(store: Store) -> None:
    await store.write(row(1, channel=Channel.INBOX, state=State.IN_INBOX), row(2, thread=THREAD))
    await store.write(row(3, owner="zoe", thread=THREAD))
    inbox = Query(owner=OWNER, agent_id=AGENT, channel=Channel.INBOX, states=(State.IN_INBOX,), thread=THREAD)
    assert await store.queries.count(Query(owner=OWNER, thread=THREAD)) == 2
    assert await store.queries.count(inbox) == 1
