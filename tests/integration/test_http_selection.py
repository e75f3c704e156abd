"""Messages to whoever fits: who is chosen, how the choice is told, and that a repetition changes nothing of it."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import pytest

from contracts.directory import agent_key
from contracts.records import Agent
from gateway.intake import SendHeaders
from gateway.parts import Rooms
from gateway.ports import Write
from gateway.schemas_messages import SelectedMessage
from gateway.selections import SelectedSend
from infra.embedded import EmbeddedRedis, NatsEndpoint, RedisEndpoint
from router.service import Draft, Standing
from tests.http_rig import Caller, Json, Rig, code_of, expect, running_rig
from tests.installation import MovableClock
from tests.refusals import nothing_stored

HAIKU: Json = {"capabilities.model": "claude-3-5-haiku"}
LLM: Json = {"kind": "llm"}
LIVE_OR_NOTHING: Json = {"delivery_mode": "live", "live_fallback_mode": "none"}


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
async def rig(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str, clock: MovableClock
) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix, clock=clock) as running:
        yield running


async def worker(rig: Rig, slug: str, *channels: str, by: Caller | None = None, **fields: Any) -> Json:
    """An agent that is an llm with the model haiku unless it says otherwise."""
    made = await (by or rig.max).agent(slug, *(channels or ("bg", "inbox")))
    facts = {"kind": "llm", "capabilities": {"model": "claude-3-5-haiku"}, **fields}
    store = rig.gateway.parts.store
    found = await store.get(agent_key(made["id"]), Agent, fresh=True)
    assert found is not None
    record = replace(found.record, **facts)
    await store.transact([Write(key=agent_key(made["id"]), record=record, expected_seq=found.seq)])
    return made


def to(where: Json | None = None, **more: Any) -> Json:
    return {"to": {"where": LLM if where is None else where, **more}, "message": "Who is free?"}


async def send(rig: Rig, body: Json, *, status: int = 201, by: Caller | None = None, key: str | None = None) -> Json:
    headers = {"Idempotency-Key": key} if key else {}
    return expect(status, await (by or rig.max).call("POST", "/v1/messages", json=body, headers=headers))


def selection_of(view: Json) -> Json:
    """The first gate of a message's trace."""
    gate: Json = view["trace"][0]
    assert (gate["gate"], gate["verdict"], gate["reason"], gate["channel"]) == ("selection", "pass", "chosen", None)
    facts: Json = gate["facts"]
    return facts


def in_an_hour(clock: MovableClock) -> str:
    return (clock.now() + timedelta(hours=1)).isoformat()


async def until_counted(rig: Rig) -> None:
    await rig.gateway.parts.queries.settle()


class TestOne:
    async def test_the_choice_is_the_first_gate_of_the_stored_trace(self, rig: Rig) -> None:
        chosen = await worker(rig, "haiku")
        await worker(rig, "opus", capabilities={"model": "opus"})
        await rig.max.agent("plain")

        sent = await send(rig, to({**HAIKU, **LLM}))

        assert sent["to"]["agent_id"] == chosen["id"]
        assert selection_of(sent) == {
            "project": "max",
            "where": {**HAIKU, **LLM},
            "pick": "one",
            "considered": 3,
            "matched": 1,
            "reachable": 1,
            "rank": 1,
            "presence": "offline",
            "open_executions": 0,
            "runners_up": [],
        }
        assert [each["gate"] for each in sent["trace"][1:3]] == ["agent_active", "capability"]
        read = await rig.max.get(f"/v1/executions/{sent['execution_id']}")
        assert selection_of(read) == selection_of(sent)
        assert read["events"][0]["decision"]["trace"][0]["gate"] == "selection"

    async def test_present_comes_before_stale_and_stale_before_absent(self, rig: Rig, clock: MovableClock) -> None:
        names = {(await worker(rig, slug, "live", "bg"))["id"]: slug for slug in ("absent", "stale", "present")}
        await rig.max.session("stale")
        clock.move(seconds=200)
        await rig.gateway.parts.beats.renew_door()
        await rig.max.session("present")

        facts = selection_of(await send(rig, to()))

        assert (facts["presence"], facts["rank"]) == ("online", 1)
        assert [(names[each["agent_id"]], each["presence"]) for each in facts["runners_up"]] == [
            ("stale", "stale"),
            ("absent", "offline"),
        ]

    async def test_a_session_that_takes_no_pushes_makes_its_agent_present_and_reaches_nobody(self, rig: Rig) -> None:
        for slug in ("a", "b"):
            await worker(rig, slug, "live", "bg", "inbox")
        agent_id = (await rig.max.get("/v1/agents/b"))["id"]
        path = f"/v1/projects/max/agents/{agent_id}/sessions"
        await rig.max.post(path, {"transport": "poll"}, status=201)

        sent = await send(rig, {**to(), "delivery_mode": "bg"})
        live = await rig.max.call("POST", "/v1/messages", json={**to(), **LIVE_OR_NOTHING})

        assert (sent["to"]["slug"], selection_of(sent)["presence"]) == ("b", "online")
        assert (live.status_code, code_of(live)) == (404, "no_agent_fits")
        assert live.json()["error"]["matched"] == 2

    async def test_of_those_present_the_least_busy_is_chosen(self, rig: Rig) -> None:
        for slug in ("one", "two", "three"):
            await worker(rig, slug)
        for slug, n in (("one", 2), ("two", 1), ("three", 3)):
            for _ in range(n):
                await rig.max.send(slug, delivery_mode="inbox")
        await until_counted(rig)

        sent = await send(rig, to())

        assert (sent["to"]["slug"], selection_of(sent)["open_executions"]) == ("two", 1)
        busy = [(each["slug"], each["open_executions"]) for each in selection_of(sent)["runners_up"]]
        assert busy == [("one", 2), ("three", 3)]

    async def test_what_is_put_off_keeps_nobody_busy(self, rig: Rig, clock: MovableClock) -> None:
        await worker(rig, "one")
        await rig.max.send("one", delivery_mode="inbox")
        await rig.max.send("one", delivery_mode="inbox", send_at=in_an_hour(clock))
        await until_counted(rig)

        assert selection_of(await send(rig, to()))["open_executions"] == 1

    async def test_equals_share_the_work(self, rig: Rig) -> None:
        names = [(await worker(rig, f"w-{n}"))["slug"] for n in range(4)]

        shares: Counter[str] = Counter()
        for _ in range(80):
            shares[(await rig.max.post("/v1/route", to()))["to"]["slug"]] += 1

        assert set(shares) == set(names)
        assert max(shares.values()) < 40

    async def test_a_forced_mode_an_agent_does_not_declare_passes_it_over(self, rig: Rig) -> None:
        for n in range(5):
            await worker(rig, f"inbox-{n}", "inbox")
        able = await worker(rig, "able", "bg")

        sent = await send(rig, {**to(), "delivery_mode": "bg"})

        assert sent["to"]["agent_id"] == able["id"]
        facts = selection_of(sent)
        assert (facts["matched"], facts["reachable"], facts["runners_up"]) == (6, 1, [])

    async def test_an_inactive_agent_is_not_there(self, rig: Rig) -> None:
        await worker(rig, "asleep")
        await rig.max.patch("/v1/agents/asleep", {"status": "inactive"})

        async with nothing_stored(rig):
            answer = await rig.max.call("POST", "/v1/messages", json=to())

        assert (answer.status_code, code_of(answer)) == (404, "no_agent_fits")
        error = answer.json()["error"]
        assert (error["considered"], error["matched"], error["reachable"]) == (0, 0, 0)

    async def test_a_wait_is_held_for_the_one_chosen(self, rig: Rig) -> None:
        await worker(rig, "w", "inbox")
        sent = expect(201, await rig.max.call("POST", "/v1/messages?wait=outcome&timeout_s=1", json=to()))
        assert sent["waited"]["reached"] is False

    async def test_a_scheduled_message_keeps_its_choice(self, rig: Rig, clock: MovableClock) -> None:
        await worker(rig, "w")
        sent = await send(rig, {**to(), "send_at": in_an_hour(clock)})
        assert (sent["state"], selection_of(sent)["rank"]) == ("scheduled", 1)

    async def test_an_answer_to_a_message_may_be_for_whoever_fits(self, rig: Rig) -> None:
        await worker(rig, "w")
        first = await rig.max.send("w")
        sent = await send(rig, {**to(), "reply_to": first["id"], "priority": 2})
        assert (sent["thread_id"], sent["hop"], sent["priority"]) == (first["id"], 1, 2)

    async def test_the_guards_answer_behind_the_choice(self, rig: Rig) -> None:
        await worker(rig, "w")
        await rig.max.agent("asker")
        sent = expect(
            201,
            await rig.max.call(
                "POST", "/v1/messages", json=to({"name": "w"}), headers={"X-Postroom-From-Agent": "asker"}
            ),
        )
        assert [gate["gate"] for gate in sent["trace"][:3]] == ["selection", "pair_budget", "agent_active"]

    async def test_a_key_of_one_agent_selects_and_speaks_for_it_alone(self, rig: Rig) -> None:
        await worker(rig, "w")
        await rig.max.agent("asker")
        minted = await rig.max.post("/v1/keys", {"agent": "asker", "scopes": ["messages:send"]}, status=201)
        asker = replace(rig.max, key=minted["key"])
        sent = await send(rig, to(), by=asker)
        assert (sent["to"]["slug"], sent["from"]["slug"]) == ("w", "asker")

    async def test_a_key_that_may_not_send_is_told_so_before_anything_is_looked_at(self, rig: Rig) -> None:
        minted = await rig.max.post("/v1/keys", {"scopes": ["messages:read"]}, status=201)
        reader = replace(rig.max, key=minted["key"])
        answer = await reader.call("POST", "/v1/messages", json=to())
        assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")


class TestRepetition:
    async def test_the_first_choice_is_kept_although_another_is_better_now(self, rig: Rig, clock: MovableClock) -> None:
        for slug in ("a", "b"):
            await worker(rig, slug, "live", "bg")
        await rig.max.session("a")
        first = await send(rig, to(), key="k")
        assert first["to"]["slug"] == "a"
        await rig.max.delete("/v1/agents/a/live-sessions/main")
        await rig.max.session("b")
        assert (await rig.max.post("/v1/route", to()))["to"]["slug"] == "b"

        again = await send(rig, to(), key="k", status=200)

        assert (again["id"], again["to"], again["replayed"]) == (first["id"], first["to"], True)
        assert selection_of(again) == selection_of(first)

    async def test_it_is_kept_when_nobody_fits_any_more(self, rig: Rig) -> None:
        await worker(rig, "a")
        first = await send(rig, to(), key="k")
        await rig.max.delete("/v1/agents/a", status=204)

        assert (await send(rig, to(), key="k", status=200))["id"] == first["id"]

    @pytest.mark.parametrize(
        "other",
        [to(HAIKU), to(pick="all"), to(project="max") | {"message": "Else?"}, {"to": "a", "message": "Who is free?"}],
    )
    async def test_another_request_under_the_key_is_refused(self, rig: Rig, other: Json) -> None:
        await worker(rig, "a")
        await send(rig, to(), key="k")

        answer = await rig.max.call("POST", "/v1/messages", json=other, headers={"Idempotency-Key": "k"})

        assert (answer.status_code, code_of(answer)) == (409, "idempotency_mismatch")

    async def test_the_same_request_at_once_is_one_message(self, rig: Rig) -> None:
        for n in range(5):
            await worker(rig, f"w-{n}")
        ids: list[str] = []

        async def once() -> None:
            answer = await rig.max.call("POST", "/v1/messages", json=to(), headers={"Idempotency-Key": "k"})
            assert answer.status_code in (200, 201), answer.text
            ids.append(answer.json()["id"])

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(once)

        assert len(set(ids)) == 1


class TestAll:
    async def test_each_that_fits_gets_a_message_of_its_own(self, rig: Rig) -> None:
        made = {(await worker(rig, f"w-{n}"))["id"] for n in range(5)}
        await worker(rig, "asleep")
        await rig.max.patch("/v1/agents/asleep", {"status": "inactive"})

        answer = await send(rig, to(pick="all"))

        assert answer["failures"] == []
        assert answer["selection"] == {
            "project": "max", "where": LLM, "pick": "all", "considered": 5, "matched": 5, "reachable": 5,
        }  # fmt: skip
        assert {view["to"]["agent_id"] for view in answer["messages"]} == made
        assert len({view["id"] for view in answer["messages"]}) == 5
        assert [selection_of(view)["rank"] for view in answer["messages"]] == [1, 2, 3, 4, 5]

    async def test_who_cannot_have_it_is_told_beside_those_who_have(self, rig: Rig) -> None:
        await worker(rig, "able", "bg")
        unable = await worker(rig, "unable", "inbox")

        answer = await send(rig, {**to(pick="all"), "delivery_mode": "bg"})

        assert [view["to"]["slug"] for view in answer["messages"]] == ["able"]
        [failure] = answer["failures"]
        assert failure["to"] == {"agent_id": unable["id"], "slug": "unable", "owner": "max"}
        assert (failure["error"]["code"], failure["error"]["status"]) == ("capability_not_declared", 422)
        assert failure["error"]["trace"][0]["gate"] == "selection"
        assert (answer["selection"]["matched"], answer["selection"]["reachable"]) == (2, 1)

    async def test_where_nobody_can_have_it_the_refusal_is_the_answer(self, rig: Rig) -> None:
        await worker(rig, "unable", "inbox")
        async with nothing_stored(rig):
            answer = await rig.max.call("POST", "/v1/messages", json={**to(pick="all"), "delivery_mode": "bg"})
        assert (answer.status_code, code_of(answer)) == (422, "capability_not_declared")

    async def test_a_repetition_finds_the_same_messages_whoever_fits_now(self, rig: Rig) -> None:
        for n in range(4):
            await worker(rig, f"w-{n}")
        first = await send(rig, to(pick="all"), key="k")
        await worker(rig, "newcomer")
        await rig.max.delete("/v1/agents/w-0", status=204)
        await rig.max.patch("/v1/agents/w-1", {"status": "inactive"})

        again = await send(rig, to(pick="all"), key="k", status=200)

        assert again["replayed"] is True
        assert [view["id"] for view in again["messages"]] == [view["id"] for view in first["messages"]]
        assert (again["selection"], again["failures"]) == (first["selection"], [])

    async def test_it_finds_them_when_nobody_fits_any_more(self, rig: Rig) -> None:
        for n in range(2):
            await worker(rig, f"w-{n}")
        first = await send(rig, to(pick="all"), key="k")
        for n in range(2):
            await rig.max.delete(f"/v1/agents/w-{n}", status=204)

        again = await send(rig, to(pick="all"), key="k", status=200)

        assert [view["id"] for view in again["messages"]] == [view["id"] for view in first["messages"]]

    async def test_of_two_at_once_the_first_to_be_stored_says_whom_the_message_goes_to(self, rig: Rig) -> None:
        for slug in ("a", "b"):
            await worker(rig, slug)
        rooms: Rooms = rig.gateway.app.state.rooms
        overtaking = [True]
        principal = await rooms.authenticator.principal([(b"authorization", f"Bearer {rig.max.key}".encode())])

        async def accept(draft: Draft) -> Standing:
            if overtaking and overtaking.pop():
                await rig.max.patch("/v1/agents/b", {"status": "inactive"})
                assert len((await send(rig, to(pick="all"), key="k"))["messages"]) == 1
            return await rooms.parts.service.accept(draft)

        wanted = SelectedMessage.model_validate(to(pick="all"))
        headers = SendHeaders(idempotency_key="k")
        request = SelectedSend(wanted=wanted, headers=headers, principal=principal, accept=accept)
        result = await rooms.selections.send_all(request)

        assert [draft.recipient.slug for draft, _ in result.sent.values()] == ["a"]
        assert result.is_replayed

    async def test_a_repetition_sends_what_the_first_attempt_did_not_get_to(self, rig: Rig) -> None:
        await worker(rig, "able", "bg")
        await worker(rig, "later", "inbox")
        body = {**to(pick="all"), "delivery_mode": "bg"}
        first = await send(rig, body, key="k")
        assert len(first["failures"]) == 1
        await rig.max.patch("/v1/agents/later", {"delivery_capabilities": ["inbox", "bg"]})

        again = await send(rig, body, key="k")

        assert again["failures"] == []
        assert [view["to"]["slug"] for view in again["messages"]] == ["able", "later"]
        assert again["messages"][0]["id"] == first["messages"][0]["id"]
        third = await send(rig, body, key="k", status=200)
        assert [view["id"] for view in third["messages"]] == [view["id"] for view in again["messages"]]

    async def test_the_same_request_at_once_sends_each_once(self, rig: Rig) -> None:
        for n in range(5):
            await worker(rig, f"w-{n}")
        answers: list[Json] = []

        async def once() -> None:
            response = await rig.max.call("POST", "/v1/messages", json=to(pick="all"), headers={"Idempotency-Key": "k"})
            assert response.status_code in (200, 201), response.text
            answers.append(response.json())

        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(once)

        assert len({view["id"] for each in answers for view in each["messages"]}) == 5
        assert all(len(each["messages"]) == 5 and not each["failures"] for each in answers)

    async def test_more_than_a_hundred_are_refused_and_one_of_them_can_be_chosen(self, rig: Rig) -> None:
        for n in range(101):
            await worker(rig, f"w-{n:03}")

        async with nothing_stored(rig):
            answer = await rig.max.call("POST", "/v1/messages", json=to(pick="all"))

        assert (answer.status_code, code_of(answer)) == (422, "too_many_recipients")
        assert answer.json()["error"]["matched"] == 101
        assert selection_of(await send(rig, to()))["matched"] == 101

    async def test_no_answer_is_held_for_many(self, rig: Rig) -> None:
        await worker(rig, "w")
        async with nothing_stored(rig):
            answer = await rig.max.call("POST", "/v1/messages?wait=outcome", json=to(pick="all"))
        assert (answer.status_code, code_of(answer)) == (422, "field_not_applicable")
        assert answer.json()["error"]["field"] == "wait"


class TestForeign:
    async def test_how_busy_somebody_elses_agents_are_and_who_backs_them_is_not_told(self, rig: Rig) -> None:
        account = await rig.eve.post("/v1/projects/eve/service-accounts", {"name": "w"}, status=201)
        backed = {"service_account_id": account["id"], "external_addressable": True}
        for slug in ("busy", "free"):
            await worker(rig, slug, "bg", by=rig.eve, **backed)
        await rig.eve.post("/v1/grants", {"owner": "max"}, status=201)
        await rig.eve.send("busy")
        await until_counted(rig)
        probe: Json = {"service_account_id": account["id"]}

        sent = await send(rig, to(project="eve"))
        probing = await rig.max.call("POST", "/v1/messages", json=to(probe, project="eve"))
        own = await send(rig, to(probe), by=rig.eve)

        facts = selection_of(sent)
        assert (sent["to"]["slug"], facts["open_executions"]) == ("free", None)
        assert [each["open_executions"] for each in facts["runners_up"]] == [None]
        assert (probing.status_code, code_of(probing)) == (404, "no_agent_fits")
        assert selection_of(own)["open_executions"] is not None

    async def test_a_repetition_sends_nothing_to_whom_the_caller_may_not_send_any_more(self, rig: Rig) -> None:
        for slug, channel in (("able", "bg"), ("later", "inbox"), ("closed", "inbox"), ("gone", "inbox")):
            await worker(rig, slug, channel, by=rig.eve, external_addressable=True)
        await rig.eve.post("/v1/grants", {"owner": "max"}, status=201)
        body = {**to(project="eve", pick="all"), "delivery_mode": "bg"}
        first = await send(rig, body, key="k")
        assert len(first["failures"]) == 3
        for slug in ("later", "closed", "gone"):
            await rig.eve.patch(f"/v1/agents/{slug}", {"delivery_capabilities": ["inbox", "bg"]})
        await rig.eve.patch("/v1/agents/closed", {"external_addressable": False})
        await rig.eve.delete("/v1/agents/gone", status=204)

        second = await send(rig, body, key="k")
        await rig.eve.delete("/v1/grants/max", status=204)
        await rig.eve.patch("/v1/agents/closed", {"external_addressable": True})
        third = await send(rig, body, key="k")

        for again in (second, third):
            assert [view["to"]["slug"] for view in again["messages"]] == ["able", "later"]
            assert {(each["to"]["slug"], each["error"]["code"]) for each in again["failures"]} == {
                ("closed", "agent_not_found"),
                ("gone", "agent_not_found"),
            }

    async def test_a_project_that_is_not_open_answers_as_an_absent_one(self, rig: Rig) -> None:
        await worker(rig, "w", by=rig.eve)

        foreign = await rig.max.call("POST", "/v1/messages", json=to(project="eve"))
        absent = await rig.max.call("POST", "/v1/messages", json=to(project="nobody"))

        assert (foreign.status_code, code_of(foreign)) == (404, "no_agent_fits")
        assert foreign.content == absent.content

    async def test_a_grant_opens_the_addressable_ones(self, rig: Rig) -> None:
        await worker(rig, "shut", by=rig.eve)
        opened = await worker(rig, "open", by=rig.eve, external_addressable=True)
        await rig.eve.post("/v1/grants", {"owner": "max"}, status=201)

        sent = await send(rig, to(project="eve"))
        nobody = await rig.max.call("POST", "/v1/messages", json=to({"kind": "no"}, project="eve"))

        assert sent["to"] == {"agent_id": opened["id"], "slug": "open", "owner": "eve"}
        assert (selection_of(sent)["considered"], selection_of(sent)["matched"]) == (1, 1)
        assert nobody.json()["error"].keys() == {"code", "message", "status"}

    async def test_an_admin_key_selects_in_every_project(self, rig: Rig) -> None:
        made = await worker(rig, "w", by=rig.eve)
        sent = await send(rig, to(project="eve"), by=rig.admin)
        assert sent["to"]["agent_id"] == made["id"]


class TestList:
    async def test_agents_are_listed_by_what_they_are(self, rig: Rig) -> None:
        await worker(rig, "small", capabilities={"model": "haiku", "gpu": {"n": 1}})
        await worker(rig, "large", capabilities={"model": "opus", "gpu": {"n": 4}})
        await worker(rig, "robot", kind="rpa", capabilities={"model": "haiku"})

        async def listed(**query: str) -> list[str]:
            return [each["slug"] for each in (await rig.max.get("/v1/agents", **query))["agents"]]

        assert await listed(kind="llm") == ["large", "small"]
        assert await listed(kind="llm", **{"capabilities.model": "haiku"}) == ["small"]
        assert await listed(**{"capabilities.gpu.n": "4"}) == ["large"]
        assert await listed(**{"capabilities.gpu.n": "null"}) == ["robot"]

    async def test_a_page_goes_on_only_with_what_was_asked(self, rig: Rig) -> None:
        for slug in ("a", "b", "c"):
            await worker(rig, slug)
        page = await rig.max.get("/v1/agents", kind="llm", limit=2)
        rest = await rig.max.get("/v1/agents", kind="llm", limit=2, cursor=page["next_cursor"])
        assert [each["slug"] for each in rest["agents"]] == ["c"]
        other = await rig.max.call("GET", "/v1/agents", params={"kind": "rpa", "cursor": page["next_cursor"]})
        assert code_of(other) == "invalid_cursor"


class TestRoute:
    async def test_a_question_is_answered_as_a_message_would_be_and_stores_nothing(self, rig: Rig) -> None:
        await worker(rig, "w")
        async with nothing_stored(rig):
            route = await rig.max.post("/v1/route", to())
        assert (route["to"]["slug"], route["effective_delivery_mode"]) == ("w", "bg")
        assert selection_of(route)["rank"] == 1

    async def test_a_question_for_all_has_a_route_for_each(self, rig: Rig) -> None:
        for slug in ("a", "b"):
            await worker(rig, slug)
        answer = await rig.max.post("/v1/route", to(pick="all"))
        assert sorted(route["to"]["slug"] for route in answer["routes"]) == ["a", "b"]
        assert answer["selection"]["matched"] == 2


async def test_a_message_to_an_address_has_no_selection_in_its_trace(rig: Rig) -> None:
    await worker(rig, "w")
    sent = await rig.max.send("w")
    assert "selection" not in [gate["gate"] for gate in sent["trace"]]


async def test_without_redis_the_choice_says_what_it_does_not_know(
    nats_server: NatsEndpoint, own_redis: EmbeddedRedis, prefix: str
) -> None:
    async with running_rig(nats_server, own_redis.endpoint, prefix) as rig:
        await worker(rig, "w", "inbox")
        await own_redis.stop()
        facts = selection_of(await send(rig, to()))
        assert (facts["presence"], facts["open_executions"]) == (None, None)
