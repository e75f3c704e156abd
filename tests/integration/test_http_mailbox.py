"""Inbox and sent as CueAPI's clients turn their pages, and what a message says of whoever sent it."""

from collections.abc import AsyncIterator

import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, code_of, running_rig

INBOX, SENT = "/v1/agents/helper/inbox", "/v1/agents/writer/sent"


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("helper")
        await running.max.agent("writer")
        yield running


async def send(rig: Rig, text: str = "x", *, sender: str = "writer", to: str = "helper", **more: object) -> Json:
    headers = {"X-Postroom-From-Agent": sender}
    return await rig.max.post("/v1/messages", {"to": to, "message": text, **more}, status=201, headers=headers)


def texts(page: Json) -> list[str]:
    return [each["message"] for each in page["messages"]]


# --- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [(INBOX, [["n0", "n1"], ["n2", "n3"], ["n4"], []]), (SENT, [["n4", "n3"], ["n2", "n1"], ["n0"], []])],
)
async def test_pages_turned_by_offset_show_everything_once_and_know_how_much_there_is(
    rig: Rig, path: str, expected: list[list[str]]
) -> None:
    for number in range(5):
        await send(rig, f"n{number}")
    await send(rig, "elsewhere", sender="helper", to="writer")

    pages = [await rig.max.get(path, limit=2, offset=offset) for offset in (0, 2, 4, 6)]

    assert [texts(page) for page in pages] == expected
    assert [(page["total"], page["limit"], page["offset"]) for page in pages] == [(5, 2, n) for n in (0, 2, 4, 6)]


async def test_a_cursor_and_an_offset_lead_to_the_same_rows(rig: Rig) -> None:
    for number in range(4):
        await send(rig, f"n{number}")

    first = await rig.max.get(INBOX, limit=2)
    rest = await rig.max.get(INBOX, limit=2, cursor=first["next_cursor"])

    assert texts(rest) == texts(await rig.max.get(INBOX, limit=2, offset=2)) == ["n2", "n3"]
    assert (rest["total"], rest["next_cursor"]) == (None, None)


async def test_clients_that_turn_pages_by_number_are_told_how_much_there_is(rig: Rig) -> None:
    for number in range(3):
        await send(rig, f"n{number}")

    theirs = await rig.max.call("GET", INBOX, params={"limit": 2}, headers={"user-agent": "cueapi-python/1"})
    numbered, ours = await rig.max.get(INBOX, limit=2, offset=0), await rig.max.get(INBOX, limit=2)

    assert (theirs.json()["total"], numbered["total"], ours["total"]) == (3, 3, None)


async def test_a_total_that_is_not_known_is_null_and_a_whole_list_is_counted(rig: Rig) -> None:
    for number in range(3):
        await send(rig, f"n{number}", priority=4)

    part = await rig.max.get(INBOX, limit=2, priority="4")
    whole = await rig.max.get(INBOX, priority="4")
    narrowed = await rig.max.get(SENT, limit=1, state="delivered")

    assert (len(part["messages"]), len(narrowed["messages"])) == (2, 1)
    assert (part["total"], whole["total"], narrowed["total"]) == (None, 3, None)


@pytest.mark.parametrize("path", [INBOX, SENT])
@pytest.mark.parametrize("offset", ["1001", "-1", "x"])
async def test_an_offset_that_cannot_be_is_refused(rig: Rig, path: str, offset: str) -> None:
    answer = await rig.max.call("GET", path, params={"offset": offset})

    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "offset"
    assert code_of(answer) == ("invalid_type" if offset == "x" else "out_of_range")


async def test_their_clients_find_what_they_read_of_read_and_ack(rig: Rig) -> None:
    sent = await send(rig)
    path = f"/v1/messages/{sent['id']}"

    read = await rig.max.post(f"{path}/read")
    acked = await rig.max.post(f"{path}/ack")

    assert (read["delivery_state"], bool(read["read_at"]), read["acked_at"]) == ("read", True, None)
    assert (acked["delivery_state"], bool(acked["acked_at"])) == ("acked", True)


# --- who sent it, and what led to it -------------------------------------------------------------------------------


async def test_a_message_names_its_sender_as_it_was_called_when_it_sent(rig: Rig) -> None:
    sent = await send(rig)
    nameless = await rig.max.send("helper", "from a person")
    await rig.max.patch("/v1/agents/writer", {"slug": "author"})
    later = await send(rig, sender="author")

    listed = (await rig.max.get(INBOX))["messages"]

    assert [each["from"]["slug"] for each in (sent, nameless, later)] == ["writer", None, "author"]
    assert [each["from"]["slug"] for each in listed] == ["writer", None, "author"]
    assert listed[0]["from"]["agent_id"] == listed[2]["from"]["agent_id"]


async def test_an_answer_tells_its_chain_and_that_it_is_automatic(rig: Rig) -> None:
    question = await send(rig)
    answer = await send(rig, sender="helper", to="writer", reply_to=question["id"], auto_reply=True)
    read = await rig.max.get(f"/v1/messages/{answer['id']}")

    assert (question["chain"], question["auto_reply"], question["priority_downgraded"]) == ([], False, False)
    assert read["chain"] == answer["chain"] == [question["from"]["agent_id"]]
    assert read["auto_reply"] is True


async def test_a_lowered_priority_is_told_by_the_message_as_well(rig: Rig) -> None:
    sent = [await send(rig, f"n{number}", priority=5) for number in range(6)]

    assert [each["priority_downgraded"] for each in sent] == [False] * 5 + [True]
    assert (await rig.max.get(f"/v1/messages/{sent[5]['id']}"))["priority_downgraded"] is True


# --- what a program gave up ----------------------------------------------------------------------------------------


async def test_rows_that_were_given_up_are_counted(rig: Rig) -> None:
    rig.gateway.projection.dropped += 2

    text = (await rig.nobody.call("GET", "/metrics")).text

    assert "postroom_projection_rows_dropped_total 2.0" in text
    assert "postroom_projection_rows_queued " in text
