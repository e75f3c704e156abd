"""Cues where something goes missing in between: a grant, a note, a cue, the broker for a moment."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import anyio
import pytest

from contracts.cues import CueTrigger, Fire, fire_ulid
from contracts.errors import Unavailable
from infra.cue_store import DirectoryCues
from infra.embedded import NatsEndpoint, RedisEndpoint
from router.cue_turns import MAX_FIRES
from router.service import Draft, Service, Standing
from router.store_ports import CueHeld
from tests.cue_rig import CueRig
from tests.event_rig import events_until
from tests.http_rig import running_rig


@pytest.fixture
async def cues(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[CueRig]:
    async with running_rig(nats_server, redis_server, prefix) as rig:
        await rig.max.agent("notes", "inbox")
        yield CueRig(rig=rig)


async def test_a_grant_that_was_withdrawn_ends_what_a_cue_tells_of_its_failures(cues: CueRig) -> None:
    await cues.rig.eve.agent("open", "inbox", external_addressable=True)
    await cues.rig.eve.post("/v1/grants", {"owner": "max"}, status=201)
    cue = await cues.cue(schedule={"cron": "0 0 1 1 *"}, on_failure={"to": "open@eve"})
    await cues.rig.eve.delete("/v1/grants/max", status=204)
    async with cues.router():
        fired = await cues.rig.max.post(f"/v1/cues/{cue['id']}/fire")
        await cues.rig.max.post(f"/v1/executions/{fired['id']}/outcome", {"success": False, "error": "no ink"})
        await cues.until(cue, lambda each: each["failed_count"] == 1, 15)

    assert (await cues.rig.eve.get("/v1/agents/open/inbox"))["messages"] == []


async def test_a_fire_on_demand_the_cue_was_never_told_of_is_noted_by_its_repetition(cues: CueRig) -> None:
    """A gateway that dies between the message and the note leaves the one without the other."""
    cue = await cues.cue()
    path, once = f"/v1/cues/{cue['id']}/fire", {"Idempotency-Key": "once"}
    fired = await cues.rig.max.post(path, headers=once)
    await cues.rewrite(cue, lambda record: replace(record, fires=(), n_fired=0))
    for _ in range(2):
        assert (await cues.rig.max.post(path, headers=once))["replayed"]
    told = await cues.read(cue)

    assert ([each["id"] for each in told["executions"]], told["run_count"]) == ([fired["id"]], 1)


async def test_a_forgotten_fire_is_not_noted_again(cues: CueRig) -> None:
    cue = await cues.cue()
    path, once = f"/v1/cues/{cue['id']}/fire", {"Idempotency-Key": "once"}
    fired = await cues.rig.max.post(path, headers=once)
    for _ in range(MAX_FIRES):
        await cues.rig.max.post(path)
    await cues.rig.max.post(path, headers=once)
    told = await cues.read(cue)

    assert fired["id"] not in [each["id"] for each in told["executions"]]
    assert told["run_count"] == MAX_FIRES + 1


async def test_an_admin_who_changes_a_cue_means_agents_as_its_owner_does(cues: CueRig) -> None:
    await cues.rig.admin.agent("other", "inbox")
    mine = await cues.rig.max.agent("other", "inbox")
    cue = await cues.cue()
    await cues.rig.admin.patch(f"/v1/cues/{cue['id']}", {"to": "other", "on_failure": {"to": "other"}})
    fired = await cues.rig.max.post(f"/v1/cues/{cue['id']}/fire")

    assert fired["message"]["to"]["agent_id"] == mine["id"]


async def test_a_fire_without_a_message_that_nobody_can_make_is_not_looked_at_at_every_tick(
    cues: CueRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cue, other = await cues.cue(name="empty"), await cues.every_minute(name="other")
    now = cues.clock.now() - timedelta(minutes=1)
    lost = Fire(ulid=fire_ulid("max", cue["id"], now), scheduled_for=now, decided_at=now, trigger=CueTrigger.MANUAL)
    await cues.rewrite(cue, lambda record: replace(record, fires=(lost,)))
    looks, get = Counter[str](), DirectoryCues.get

    async def counted(self: DirectoryCues, cue_id: str) -> CueHeld | None:
        looks[cue_id] += 1
        return await get(self, cue_id)

    monkeypatch.setattr(DirectoryCues, "get", counted)
    async with cues.router():
        for n_fired in range(1, 9):
            cues.clock.move(minutes=1)
            await cues.until(other, lambda each, n=n_fired: each["run_count"] == n)  # type: ignore[misc]

    assert 1 <= looks[cue["id"]] <= 3


async def test_a_fire_whose_message_has_to_wait_for_the_broker_is_told_all_the_same(
    cues: CueRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cue = await cues.every_minute()
    accept, refusals = Service.accept, iter([Unavailable("broker_unavailable", "away")])

    async def away_once(self: Service, draft: Draft) -> Standing:
        for refusal in refusals:
            raise refusal
        return await accept(self, draft)

    monkeypatch.setattr(Service, "accept", away_once)
    async with cues.router():
        cues.clock.move(minutes=1)
        events = await events_until(cues.rig.max, 1, type="cue.fired")
        cues.clock.move(seconds=10)
        with anyio.fail_after(10):
            while not (found := await cues.messages(cue)):
                await anyio.sleep(0.02)

    assert [each["data"]["message_id"] for each in events] == [found[0]["message_id"]]


async def test_a_router_forgets_the_fires_of_a_deleted_cue(cues: CueRig) -> None:
    gone, kept = await cues.cue(), await cues.cue(name="kept")
    async with cues.router() as runner:
        fired = [await cues.rig.max.post(f"/v1/cues/{each['id']}/fire") for each in (gone, kept)]
        with anyio.fail_after(10):
            while len(runner.followed) < 2:
                await anyio.sleep(0.02)
        await cues.rig.max.delete(f"/v1/cues/{gone['id']}", status=204)
        for each in fired:
            await cues.rig.max.post(f"/v1/executions/{each['id']}/outcome", {"success": True})
        await cues.until(kept, lambda each: each["succeeded_count"] == 1, 15)
        with anyio.fail_after(10):
            while runner.followed:
                await anyio.sleep(0.02)
