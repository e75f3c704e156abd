"""Cues over HTTP: made, refused, changed, fired by their schedule and on demand, followed to their end, deleted."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import anyio
import pytest
from standardwebhooks import Webhook

from contracts.cues import Cue, Fire, fire_ulid
from contracts.directory import agent_key
from contracts.records import Agent
from contracts.words import Reason
from infra.directory_store import DirectoryReader
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.cue_rig import CueRig
from tests.event_rig import events_until
from tests.http_rig import Json, code_of, expect, running_rig

CONFIRMED = {"X-Confirm-Destructive": "true"}


@pytest.fixture
async def cues(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[CueRig]:
    async with running_rig(nats_server, redis_server, prefix, webhook_allow_loopback=True) as rig:
        await rig.max.agent("notes", "inbox")
        yield CueRig(rig=rig)


def instants(executions: list[Json]) -> list[datetime]:
    return [datetime.fromisoformat(each["scheduled_for"]) for each in executions]


async def refused(cues: CueRig, body: Json) -> tuple[int, str]:
    answer = await cues.rig.max.call("POST", "/v1/cues", json={"name": "n", "to": "notes", "message": "x", **body})
    return answer.status_code, code_of(answer)


async def test_a_cue_is_made_listed_read_and_says_when_it_fires_next(cues: CueRig) -> None:
    made = await cues.cue(schedule={"cron": "0 9 29 2 *", "timezone": "Europe/Berlin"})

    assert await cues.read(made) == {k: v for k, v in made.items() if not k.endswith("_secret")}
    page = await cues.rig.max.get("/v1/cues", status="active")
    assert (page["total"], page["cues"][0]["id"], page["has_more"]) == (1, made["id"], False)
    assert made["schedule"] == {"type": "recurring", "cron": "0 9 29 2 *", "at": None, "timezone": "Europe/Berlin"}
    assert made["next_run"].endswith("-02-29T08:00:00.000Z")
    assert (made["status"], made["run_count"], made["to"]) == ("active", 0, "notes")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"schedule": {"cron": "61 * * * *"}}, (400, "invalid_schedule")),
        ({"schedule": {"cron": "0 0 30 2 *"}}, (400, "invalid_schedule")),
        ({"schedule": {"at": "2020-01-01T00:00:00Z"}}, (400, "invalid_schedule")),
        ({"schedule": {"at": "tomorrow"}}, (400, "invalid_schedule")),
        ({"schedule": {"cron": "* * * * *", "at": "2090-01-01T00:00:00Z"}}, (400, "invalid_schedule")),
        ({"schedule": {"type": "once", "cron": "* * * * *"}}, (400, "invalid_schedule")),
        ({"schedule": {"cron": "* * * * *", "timezone": "Mars/Olympus"}}, (422, "invalid_timezone")),
        ({"payload": {"x": "y" * 70_000}}, (400, "invalid_payload_size")),
        ({"payload": {"x": "\0"}}, (422, "control_character")),
        ({"to": "nobody-here"}, (404, "agent_not_found")),
        ({"nonsense": 1}, (422, "unknown_field")),
        ({"callback": {"url": "https://example.com/"}, "to": "notes"}, (422, "field_not_applicable")),
        ({"message": None}, (422, "required")),
    ],
)
async def test_what_cannot_be_a_cue_is_refused_by_its_code(cues: CueRig, body: Json, expected: tuple[int, str]) -> None:
    assert await refused(cues, body) == expected
    assert (await cues.rig.max.get("/v1/cues"))["total"] == 0


async def test_a_callback_into_our_own_network_is_refused_and_two_cues_share_no_name(cues: CueRig) -> None:
    inside = {"name": "n", "callback": {"url": "https://169.254.169.254/"}}
    answer = await cues.rig.max.call("POST", "/v1/cues", json=inside)
    await cues.cue()
    again = await cues.rig.max.call("POST", "/v1/cues", json={"name": "report", "to": "notes", "message": "x"})

    assert (answer.status_code, code_of(answer)) == (400, "invalid_callback_url")
    assert (again.status_code, code_of(again)) == (409, "duplicate_cue_name")


async def test_at_without_an_offset_is_read_in_the_time_zone(cues: CueRig) -> None:
    made = await cues.cue(schedule={"type": "once", "at": "2090-07-01T09:00:00", "timezone": "Asia/Tokyo"})

    assert made["next_run"] == "2090-07-01T00:00:00.000Z"


async def test_an_instant_fires_once_with_three_routers_and_leads_to_an_execution_with_its_trace(cues: CueRig) -> None:
    cue = await cues.every_minute(payload={"task": "report", "month": 3})
    async with cues.router("a"), cues.router("b"), cues.router("c"):
        cues.clock.move(minutes=1)
        told = await cues.until(cue, lambda each: each["run_count"] == 1)
        cues.clock.move(minutes=1)
        told = await cues.until(cue, lambda each: each["run_count"] == 2)
    first, second = await cues.messages(cue)

    assert instants([first])[0] == datetime.fromisoformat(cue["next_run"])
    assert instants([second])[0] - instants([first])[0] == timedelta(minutes=1)
    assert (first["cue_id"], first["triggered_by"], first["task"]) == (cue["id"], "scheduled", "report")
    assert first["payload"] == {"task": "report", "month": 3}
    whole = await cues.rig.max.get(f"/v1/executions/{told['executions'][0]['id']}")
    assert whole["id"] == second["id"]
    assert whole["trace"][0]["gate"] == "agent_active"
    assert (told["missed_count"], told["last_run"]) == (0, second["scheduled_for"])


async def test_one_instant_ends_its_cue(cues: CueRig) -> None:
    at = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    cue = await cues.cue(schedule={"at": at})
    async with cues.router():
        cues.clock.move(minutes=6)
        told = await cues.until(cue, lambda each: each["status"] == "ended")

    assert (told["run_count"], told["next_run"]) == (1, None)


@pytest.mark.parametrize(
    ("policy", "grace_s", "fired", "missed"),
    [("fire_latest", 3_600, 1, 4), ("fire_all", 180, 3, 2), ("skip", 3_600, 1, 4), ("fire_latest", 60, 1, 4)],
)
async def test_instants_nobody_fired_are_recorded_and_the_policy_decides_which_are_fired_late(
    cues: CueRig, policy: str, grace_s: int, fired: int, missed: int
) -> None:
    cue = await cues.every_minute(minutes_ago=4, misfire_policy=policy, misfire_grace_s=grace_s)
    async with cues.router():
        told = await cues.until(cue, lambda each: each["run_count"] + each["missed_count"] >= 5)

    assert (told["run_count"], told["missed_count"], len(told["missed"])) == (fired, missed, missed)
    events = await events_until(cues.rig.max, 1, type="cue.missed")
    assert [each["data"]["missed"] for each in events] == [missed]


async def test_what_is_older_than_the_grace_is_only_recorded(cues: CueRig) -> None:
    cue = await cues.cue(schedule={"cron": "0 0 1 1 *"}, misfire_grace_s=60)
    await cues.rewrite(cue, lambda record: _with_next(record, datetime.now(UTC) - timedelta(hours=1)))
    async with cues.router():
        told = await cues.until(cue, lambda each: each["missed_count"] == 1)

    assert (told["run_count"], await cues.messages(cue)) == (0, [])


async def test_a_clock_set_forward_and_back_again_doubles_nothing(cues: CueRig) -> None:
    cue = await cues.every_minute(misfire_policy="fire_all")
    async with cues.router():
        cues.clock.move(minutes=3)
        ahead = await cues.until(cue, lambda each: each["run_count"] >= 3)
        cues.clock.move(minutes=-3)
        # Something else happens meanwhile: the router has looked at its clock since.
        other = await cues.every_minute(name="other")
        cues.clock.move(minutes=1)
        await cues.until(other, lambda each: each["run_count"] == 1)
        assert (await cues.read(cue))["run_count"] == ahead["run_count"]
        cues.clock.move(minutes=3)
        told = await cues.until(cue, lambda each: each["run_count"] > ahead["run_count"])
    found = instants(await cues.messages(cue))

    assert len(found) == len(set(found)) == told["run_count"]
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(minutes=1)}


async def test_a_fire_that_was_decided_and_not_made_is_made_by_whoever_comes_next(cues: CueRig) -> None:
    """A router that dies between the two leaves just this record."""
    cue = await cues.cue(schedule={"cron": "0 0 1 1 *"})
    at = datetime(2026, 1, 1, tzinfo=UTC)
    left = Fire(ulid=fire_ulid("max", cue["id"], at), scheduled_for=at, decided_at=datetime.now(UTC))
    await cues.rewrite(cue, lambda record: _with_fire(record, left))
    async with cues.router("a"), cues.router("b"):
        cues.clock.move(seconds=10)
        await cues.rewrite(cue, lambda record: record)
        await cues.until(cue, lambda each: bool(each["executions"]))
        with anyio.fail_after(10):
            while not (found := await cues.messages(cue)):
                await anyio.sleep(0.02)

    assert instants(found) == [at]


async def test_paused_nothing_fires_and_resumed_it_goes_on_with_the_next_instant(cues: CueRig) -> None:
    cue = await cues.every_minute()
    paused = await cues.rig.max.post(f"/v1/cues/{cue['id']}/pause")
    other = await cues.every_minute(name="other")
    async with cues.router():
        cues.clock.move(minutes=5)
        await cues.until(other, lambda each: each["run_count"] == 1)
        resumed = await cues.rig.max.post(f"/v1/cues/{cue['id']}/resume")

    assert (paused["status"], paused["next_run"]) == ("paused", None)
    assert (resumed["status"], resumed["run_count"], resumed["missed_count"]) == ("active", 0, 0)
    assert resumed["next_run"] > cue["created_at"]


async def test_a_changed_schedule_counts_from_now_and_the_rest_stays(cues: CueRig) -> None:
    cue = await cues.cue(schedule={"cron": "0 9 * * *", "timezone": "Asia/Tokyo"}, payload={"a": 1})
    path = f"/v1/cues/{cue['id']}"
    told = await cues.rig.max.patch(path, {"schedule": {"cron": "0 0 1 1 *"}, "name": "yearly"})

    assert told["schedule"]["timezone"] == "Asia/Tokyo"
    assert told["next_run"].endswith("-12-31T15:00:00.000Z")
    assert (told["name"], told["payload"], told["message"]) == ("yearly", {"a": 1}, "Write it.")
    await cues.cue()
    refused = await cues.rig.max.call("PATCH", path, json={"name": "report"})
    assert (refused.status_code, code_of(refused)) == (409, "duplicate_cue_name")


async def test_fired_on_demand_once_for_each_key_with_its_payload_merged_or_replaced(cues: CueRig) -> None:
    cue = await cues.cue(payload={"a": 1, "b": 1})
    path = f"/v1/cues/{cue['id']}/fire"
    first = await cues.rig.max.post(path, {"payload_override": {"b": 2}}, headers={"Idempotency-Key": "once"})
    again = await cues.rig.max.post(path, {"payload_override": {"b": 2}}, headers={"Idempotency-Key": "once"})
    replaced = await cues.rig.max.post(path, {"payload_override": {"c": 3}, "merge_strategy": "replace"})
    plain = expect(200, await cues.rig.max.call("POST", path))
    other = await cues.rig.max.call("POST", path, json={"payload_override": {"b": 9}, "idempotency_key": "once"})

    assert (first["id"], first["replayed"], again["replayed"]) == (again["id"], False, True)
    assert first["message"]["metadata"]["payload"] == {"a": 1, "b": 2}
    assert replaced["message"]["metadata"]["payload"] == {"c": 3}
    assert (plain["triggered_by"], plain["status"], plain["cue_id"]) == ("manual_fire", "pending", cue["id"])
    assert first["message"]["trace"]
    assert (other.status_code, code_of(other)) == (409, "idempotency_mismatch")
    assert (await cues.read(cue))["run_count"] == 3


async def test_the_cue_learns_how_its_fires_end(cues: CueRig) -> None:
    cue = await cues.cue()
    async with cues.router():
        fired = [await cues.rig.max.post(f"/v1/cues/{cue['id']}/fire") for _ in range(2)]
        await cues.rig.max.post(f"/v1/executions/{fired[0]['id']}/outcome", {"success": True})
        await cues.rig.max.post(f"/v1/executions/{fired[1]['id']}/outcome", {"success": False, "error": "no ink"})
        told = await cues.until(cue, lambda each: each["succeeded_count"] == each["failed_count"] == 1, 15)

    by_id = {each["id"]: each for each in told["executions"]}
    assert by_id[fired[0]["id"]]["status"] == "success"
    assert (by_id[fired[1]["id"]]["status"], by_id[fired[1]["id"]]["error_message"]) == ("failed", "no ink")


async def test_a_failed_fire_tells_an_agent_and_a_webhook_pauses_and_is_an_event(cues: CueRig) -> None:
    await cues.rig.max.agent("duty", "inbox")
    failure = {"to": "duty", "webhook": "http://127.0.0.1:8443/x", "pause": True}
    cue = await cues.cue(schedule={"cron": "0 0 1 1 *"}, on_failure=failure)
    async with cues.router("a"), cues.router("b"):
        fired = await cues.rig.max.post(f"/v1/cues/{cue['id']}/fire")
        await cues.rig.max.post(f"/v1/executions/{fired['id']}/outcome", {"success": False, "error": "no ink"})
        told = await cues.until(cue, lambda each: each["failed_count"] == 1, 15)
    [alert] = (await cues.rig.max.get("/v1/agents/duty/inbox"))["messages"]

    assert (told["status"], told["consecutive_failures"], told["next_run"]) == ("paused", 1, None)
    assert alert["metadata"]["payload"]["execution_id"] == fired["id"]
    assert alert["metadata"]["payload"]["error"] == "no ink"
    posts = (await cues.rig.max.get("/v1/executions", channel="webhook"))["executions"]
    assert len(posts) == 1
    events = await events_until(cues.rig.max, 1, type="cue.failed")
    assert [each["data"]["execution_id"] for each in events] == [fired["id"]]


async def test_a_fire_whose_receiver_is_gone_is_a_failure_on_the_cue_and_not_dropped(cues: CueRig) -> None:
    cue = await cues.every_minute()
    await cues.rig.max.delete("/v1/agents/notes", status=204)
    async with cues.router():
        cues.clock.move(minutes=1)
        told = await cues.until(cue, lambda each: each["failed_count"] == 1)

    [fire] = told["executions"]
    assert (fire["state"], fire["status"], fire["error_message"]) == ("refused", "failed", "agent_not_found")


async def test_a_callback_has_a_hidden_receiver_of_its_own_that_goes_with_the_cue(cues: CueRig) -> None:
    cue = await cues.cue(to=None, message=None, callback={"url": "http://127.0.0.1:8443/x"}, payload={"a": 1})
    fired = await cues.rig.max.post(f"/v1/cues/{cue['id']}/fire")
    own = fired["message"]["to"]["agent_id"]

    assert Webhook(cue["webhook_secret"]) is not None
    assert "webhook_secret" not in await cues.read(cue)
    assert (fired["message"]["effective_delivery_mode"], cue["transport"]) == ("webhook", "webhook")
    assert [each["slug"] for each in (await cues.rig.max.get("/v1/agents"))["agents"]] == ["notes"]
    for method, path in (("GET", f"/v1/agents/{own}"), ("DELETE", f"/v1/agents/{own}")):
        assert (await cues.rig.max.call(method, path)).status_code == 404
    sent = await cues.rig.max.call("POST", "/v1/messages", json={"to": own, "message": "x"})
    assert sent.status_code == 404
    await cues.rig.max.delete(f"/v1/cues/{cue['id']}", status=204)
    found = await cues.store.get(agent_key(own), Agent, fresh=True)
    assert found is not None
    assert (found.record.deleted_at is not None, found.record.webhook_url) == (True, None)


async def test_a_callback_keeps_its_secret_until_its_url_changes(cues: CueRig) -> None:
    cue = await cues.cue(to=None, message=None, callback={"url": "http://127.0.0.1:8443/x"})
    path = f"/v1/cues/{cue['id']}"
    same = await cues.rig.max.patch(path, {"callback": {"url": "http://127.0.0.1:8443/x"}})
    other = await cues.rig.max.patch(path, {"callback": {"url": "http://127.0.0.1:8443/y"}})
    fired = await cues.rig.max.post(f"{path}/fire")

    assert "webhook_secret" not in same
    assert other["webhook_secret"] != cue["webhook_secret"]
    assert fired["message"]["state"] == "queued"


@pytest.mark.parametrize("way", ["resume", "callback"])
async def test_a_disabled_callback_is_posted_to_again_when_its_owner_says_so(cues: CueRig, way: str) -> None:
    callback = {"url": "http://127.0.0.1:8443/x"}
    cue = await cues.cue(to=None, message=None, callback=callback)
    path = f"/v1/cues/{cue['id']}"
    fired = await cues.rig.max.post(f"{path}/fire")
    own = await cues.store.get(agent_key(fired["message"]["to"]["agent_id"]), Agent, fresh=True)
    assert own is not None
    now = cues.clock.now()
    assert await DirectoryReader(cues.store).disable_webhook(own.record, now, Reason.RECEIVER_GONE.value)
    refused = await cues.rig.max.call("POST", f"{path}/fire")

    if way == "resume":
        await cues.rig.max.post(f"{path}/resume")
    else:
        await cues.rig.max.patch(path, {"callback": callback})
    again = await cues.rig.max.post(f"{path}/fire")

    assert refused.status_code == 422
    assert again["message"]["state"] == "queued"
    assert again["message"]["to"] == fired["message"]["to"]


async def test_a_worker_that_knows_no_agents_takes_a_fire_with_its_cue(cues: CueRig) -> None:
    cue = await cues.cue(to=None, message=None, transport="worker", payload={"task": "report"})
    await cues.rig.max.post(f"/v1/cues/{cue['id']}/fire")
    [found] = (await cues.rig.max.get("/v1/executions/claimable"))["executions"]
    path = f"/v1/executions/{found['execution_id']}"
    await cues.rig.max.post(f"{path}/claim", {"worker_id": "host"})

    assert (found["cue_id"], found["cue_name"], found["task"]) == (cue["id"], "report", "report")
    assert found["payload"] == {"task": "report"}
    assert cue["warning"] is not None
    assert (await cues.rig.max.post(f"{path}/outcome", {"success": True}))["outcome_recorded"]


async def test_deleted_cues_are_gone_with_their_names_and_many_at_once(cues: CueRig) -> None:
    made = [await cues.cue(name=f"c{number}") for number in range(3)]
    unsure = await cues.rig.max.call("POST", "/v1/cues/bulk-delete", json={"ids": [made[0]["id"]]})
    body = {"ids": [made[0]["id"], made[1]["id"], "cue_nope"]}
    foreign = await cues.rig.eve.post("/v1/cues/bulk-delete", body, headers=CONFIRMED)
    told = await cues.rig.max.post("/v1/cues/bulk-delete", body, headers=CONFIRMED)
    await cues.rig.max.delete(f"/v1/cues/{made[2]['id']}", status=204)

    assert (unsure.status_code, code_of(unsure)) == (400, "confirmation_required")
    assert foreign["deleted"] == []
    assert told == {"deleted": body["ids"][:2], "skipped": ["cue_nope"]}
    assert (await cues.rig.max.get("/v1/cues"))["cues"] == []
    gone = await cues.rig.max.call("GET", f"/v1/cues/{made[2]['id']}")
    assert (gone.status_code, code_of(gone)) == (404, "cue_not_found")
    await cues.cue(name="c0")


async def test_the_account_says_how_many_cues_there_are(cues: CueRig) -> None:
    made = [await cues.cue(name=f"c{number}") for number in range(2)]
    await cues.rig.max.post(f"/v1/cues/{made[0]['id']}/pause")

    usage = (await cues.rig.max.get("/v1/usage"))["cues"]
    assert (usage["used"], usage["active"]) == (2, 1)


async def test_a_grant_that_was_withdrawn_ends_what_a_cue_may_send(cues: CueRig) -> None:
    await cues.rig.eve.agent("open", "inbox", external_addressable=True)
    await cues.rig.eve.post("/v1/grants", {"owner": "max"}, status=201)
    cue = await cues.every_minute(to="open@eve")
    await cues.rig.eve.delete("/v1/grants/max", status=204)
    async with cues.router():
        cues.clock.move(minutes=1)
        told = await cues.until(cue, lambda each: each["failed_count"] == 1)

    assert told["executions"][0]["error_message"] == "agent_not_found"


def _with_next(record: Cue, at: datetime) -> Cue:
    return replace(record, next_fire_at=at)


def _with_fire(record: Cue, fire: Fire) -> Cue:
    return replace(record, fires=(fire,))
