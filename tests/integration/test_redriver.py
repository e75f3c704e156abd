"""Routers at a redrive: each message once, at its rate, and none that ended after it was asked for."""

from collections.abc import AsyncIterator, Sequence

import anyio
import pytest

from contracts.errors import IllegalEvent, Stale, Unavailable
from contracts.redrives import Redrive, RedriveRun
from infra.codec import Undecodable
from infra.directory_store import BucketDirectory
from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.redrive_store import DirectoryRedrives
from router.redrive_runs import Passage, is_held
from router.store_ports import RunHeld
from tests.http_rig import Json, Rig, running_rig
from tests.installation import MovableClock
from tests.redriver_rig import Watched, dead, redrives_of, router

FAST: Json = {"filter": {"agent": "mac"}, "rate_per_s": 500}


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("mac", "live", heartbeat_age_sec=3600, claim_window_s=600)
        yield running


async def ended(rig: Rig, made: Json, *states: str) -> Json:
    with anyio.fail_after(20):
        while True:
            seen = await rig.max.get(f"/v1/redrives/{made['id']}")
            if seen["state"] in (states or ("done", "cancelled")):
                return seen
            await anyio.sleep(0.02)


async def replays(rig: Rig, sent: Sequence[Json]) -> list[int]:
    """How often each was replayed."""
    histories = [await rig.max.get(f"/v1/executions/{each['id']}") for each in sent]
    return [[event["type"] for event in each["events"]].count("replayed") for each in histories]


async def test_dead_letters_are_redriven_oldest_first_and_each_once(rig: Rig) -> None:
    sent = await dead(rig, 120)
    await rig.max.session("mac")
    made = await rig.max.post("/v1/dead-letters/redrive", FAST, status=202)
    desk = Watched(rig)
    async with router(rig, desk):
        seen = await ended(rig, made)
    assert (seen["state"], seen["matched"], seen["done"], seen["redriven"]) == ("done", 120, 120, 120)
    assert desk.asked == [each["id"].removeprefix("msg_") for each in sent]
    assert await replays(rig, sent) == [1] * 120
    [replayed] = [
        e for e in (await rig.max.get(f"/v1/executions/{sent[0]['id']}"))["events"] if e["type"] == "replayed"
    ]
    assert replayed["by"] == f"redrive:{made['id']}"


async def test_what_the_gates_would_end_at_once_is_refused_with_its_reason_and_stays(rig: Rig) -> None:
    sent = await dead(rig, 3)
    made = await rig.max.post("/v1/dead-letters/redrive", FAST, status=202)
    async with router(rig, Watched(rig)):
        seen = await ended(rig, made)
    assert (seen["redriven"], seen["refused_by_reason"]) == (0, {"no_session_attached": 3})
    assert await replays(rig, sent) == [0] * 3


async def test_what_ended_after_the_redrive_was_asked_for_is_left_alone(rig: Rig) -> None:
    before = await dead(rig, 2)
    made = await rig.max.post("/v1/dead-letters/redrive", FAST, status=202)
    after = await dead(rig, 2)
    await rig.max.session("mac")
    async with router(rig, Watched(rig)):
        seen = await ended(rig, made)
    assert (seen["redriven"], seen["moved_on"]) == (2, 0)
    assert await replays(rig, [*before, *after]) == [1, 1, 0, 0]


async def test_named_messages_are_redriven_and_what_moved_on_meanwhile_is_not(rig: Rig) -> None:
    sent = await dead(rig, 4)
    named = {"message_ids": [each["id"] for each in sent[:3]], "rate_per_s": 500}
    made = await rig.max.post("/v1/dead-letters/redrive", named, status=202)
    await rig.max.post(f"/v1/messages/{sent[1]['id']}/discard", {"reason": "late"})
    await rig.max.session("mac")
    async with router(rig, Watched(rig)):
        seen = await ended(rig, made)
    assert (seen["redriven"], seen["moved_on"], seen["done"]) == (2, 1, 3)
    assert await replays(rig, sent) == [1, 0, 1, 0]


class Dies(Exception):
    """A router that is gone in the middle of a message."""


async def test_another_router_goes_on_where_one_died_and_the_counts_are_right(rig: Rig) -> None:
    sent = await dead(rig, 130)
    await rig.max.session("mac")
    made = await rig.max.post("/v1/dead-letters/redrive", FAST, status=202)

    def dies(number: int) -> None:
        if number == 77:
            raise Dies

    first = Watched(rig, before=dies)
    with pytest.raises(BaseExceptionGroup):
        async with router(rig, first, "router:a"):
            await anyio.sleep_forever()
    held = await rig.max.get(f"/v1/redrives/{made['id']}")
    assert (held["state"], held["done"]) == ("running", 50)
    # The same name: a router that was started again need not wait for its own hold to end.
    second = Watched(rig)
    async with router(rig, second, "router:a"):
        seen = await ended(rig, made)
    assert (seen["done"], seen["redriven"], seen["moved_on"]) == (130, 130, 0)
    assert len(second.asked) == 80
    assert await replays(rig, sent) == [1] * 130


async def test_of_two_routers_only_one_works_at_a_redrive(rig: Rig) -> None:
    sent = await dead(rig, 60)
    await rig.max.session("mac")
    made = await rig.max.post("/v1/dead-letters/redrive", FAST, status=202)
    one, other = Watched(rig), Watched(rig)
    async with router(rig, one, "router:a"), router(rig, other, "router:b"):
        seen = await ended(rig, made)
    assert seen["redriven"] == 60
    assert sorted([len(one.asked), len(other.asked)]) == [0, 60]
    assert await replays(rig, sent) == [1] * 60


async def test_a_cancelled_redrive_stops_within_a_page_and_counts_what_it_did(rig: Rig) -> None:
    sent = await dead(rig, 150)
    await rig.max.session("mac")
    made = await rig.max.post("/v1/dead-letters/redrive", FAST, status=202)
    reached = anyio.Event()

    def tells(number: int) -> None:
        if number == 20:
            reached.set()

    async with router(rig, Watched(rig, before=tells)):
        await reached.wait()
        assert (await rig.max.post(f"/v1/redrives/{made['id']}/cancel"))["state"] == "cancelling"
        seen = await ended(rig, made, "cancelled")
    done = await replays(rig, sent)
    assert seen["redriven"] == sum(done) < 150
    answer = await rig.max.post(f"/v1/redrives/{made['id']}/cancel")
    assert answer["state"] == "cancelled"


async def test_a_done_redrive_cannot_be_cancelled_and_makes_room_for_another(rig: Rig) -> None:
    async with router(rig, Watched(rig)):
        made = [await ended(rig, await rig.max.post("/v1/dead-letters/redrive", FAST, status=202)) for _ in range(5)]
    answer = await rig.max.call("POST", f"/v1/redrives/{made[-1]['id']}/cancel")
    assert answer.json()["error"]["code"] == "redrive_ended"


class Slow(Watched):
    """Messages that take a second each; whose the redrive is by then is noted."""

    def __init__(self, rig: Rig, clock: MovableClock) -> None:
        super().__init__(rig)
        self.clock = clock
        self.was_held: list[bool] = []

    async def redrive_for(self, ulid: str, job: Redrive) -> Passage:
        self.clock.move(seconds=1)
        held = await redrives_of(self.rig).run(job.id)
        self.was_held.append(held is not None and is_held(held.run, "router:a", self.clock.now()))
        return await super().redrive_for(ulid, job)


async def test_a_page_that_takes_longer_than_a_hold_is_held_on_to(rig: Rig) -> None:
    """Otherwise two slow routers take the same page from each other and neither ever writes it down."""
    await dead(rig, 40)
    await rig.max.session("mac")
    made = await rig.max.post("/v1/dead-letters/redrive", FAST, status=202)
    slow = Slow(rig, MovableClock())
    async with router(rig, slow, clock=slow.clock):
        seen = await ended(rig, made)
    assert (seen["redriven"], seen["moved_on"]) == (40, 0)
    assert slow.was_held == [True] * 40


class CancelledInBetween(DirectoryRedrives):
    """Its owner cancels while the router reads back what it has just written down."""

    def __init__(self, rig: Rig) -> None:
        inner = rig.gateway.parts.store
        assert isinstance(inner, BucketDirectory)
        super().__init__(inner)
        self.rig = rig
        self.is_cancelled = False

    async def set_run(self, redrive_id: str, run: RedriveRun, *, expected_seq: int) -> RunHeld:
        written = await super().set_run(redrive_id, run, expected_seq=expected_seq)
        if run.done and not self.is_cancelled:
            self.is_cancelled = True
            await self.rig.max.post(f"/v1/redrives/{redrive_id}/cancel")
            raise Stale(redrive_id, expected_seq)
        return written


async def test_what_was_written_down_before_a_cancellation_is_counted_once(rig: Rig) -> None:
    sent = await dead(rig, 60)
    await rig.max.session("mac")
    made = await rig.max.post("/v1/dead-letters/redrive", FAST, status=202)
    async with router(rig, Watched(rig), store=CancelledInBetween(rig)):
        seen = await ended(rig, made, "cancelled")
    assert seen["done"] == seen["redriven"] == sum(await replays(rig, sent)) == 50


class Unreadable(DirectoryRedrives):
    """One redrive whose record nobody understands."""

    def __init__(self, rig: Rig, unreadable: str) -> None:
        inner = rig.gateway.parts.store
        assert isinstance(inner, BucketDirectory)
        super().__init__(inner)
        self.unreadable = unreadable

    async def run(self, redrive_id: str) -> RunHeld | None:
        if redrive_id == self.unreadable:
            raise Undecodable("redrun", "not JSON")
        return await super().run(redrive_id)


async def test_a_redrive_nobody_understands_stops_no_other_and_no_router(rig: Rig) -> None:
    sent = await dead(rig, 2)
    await rig.max.session("mac")
    named = [{"message_ids": [each["id"]], "rate_per_s": 500} for each in sent]
    broken, sound = [await rig.max.post("/v1/dead-letters/redrive", each, status=202) for each in named]
    async with router(rig, Watched(rig), store=Unreadable(rig, broken["id"])):
        seen = await ended(rig, sound)
    assert seen["redriven"] == 1
    assert await replays(rig, sent) == [0, 1]


async def test_a_broker_that_is_away_is_waited_for_and_the_message_asked_about_again(rig: Rig) -> None:
    sent = await dead(rig, 3)
    await rig.max.session("mac")
    made = await rig.max.post("/v1/dead-letters/redrive", FAST, status=202)

    def away(number: int) -> None:
        if number in (2, 3):
            raise Unavailable("broker_unavailable", "away", retry_after_s=0.01)

    desk = Watched(rig, before=away)
    async with router(rig, desk):
        seen = await ended(rig, made)
    assert seen["redriven"] == 3
    first, second, third = [each["id"].removeprefix("msg_") for each in sent]
    assert desk.asked == [first, second, second, second, third]


async def test_a_message_that_cannot_be_dealt_with_is_told_and_those_behind_it_are_redriven(rig: Rig) -> None:
    sent = await dead(rig, 3)
    await rig.max.session("mac")
    made = await rig.max.post("/v1/dead-letters/redrive", FAST, status=202)

    def breaks(number: int) -> None:
        if number == 2:
            raise IllegalEvent("expired", "leased")

    async with router(rig, Watched(rig, before=breaks)):
        seen = await ended(rig, made)
    assert (seen["redriven"], seen["refused_by_reason"]) == (2, {"illegal_event": 1})
    assert await replays(rig, sent) == [1, 0, 1]


async def test_all_redrives_of_a_router_share_its_ceiling(rig: Rig) -> None:
    sent = await dead(rig, 12)
    await rig.max.session("mac")
    halves = [{"message_ids": [each["id"] for each in half], "rate_per_s": 500} for half in (sent[:6], sent[6:])]
    made = [await rig.max.post("/v1/dead-letters/redrive", named, status=202) for named in halves]
    began_at = rig.gateway.parts.clock.now()
    async with router(rig, Watched(rig), ceiling_per_s=20):
        for each in made:
            await ended(rig, each)
    assert await replays(rig, sent) == [1] * 12
    # Eleven tokens after the first, at twenty a second.
    assert (rig.gateway.parts.clock.now() - began_at).total_seconds() >= 11 / 20


async def test_live_sends_are_answered_while_a_redrive_runs_and_it_takes_no_more_than_its_rate(rig: Rig) -> None:
    sent = await dead(rig, 100)
    await rig.max.session("mac")
    await rig.max.agent("desk", "inbox")
    made = await rig.max.post("/v1/dead-letters/redrive", FAST | {"rate_per_s": 50}, status=202)
    desk, live = Watched(rig), 0
    began_at = rig.gateway.parts.clock.now()
    async with router(rig, desk):
        while len(desk.asked) < len(sent):
            await rig.max.send("desk", "live traffic")
            live += 1
        took_s = (rig.gateway.parts.clock.now() - began_at).total_seconds()
        assert (await ended(rig, made))["redriven"] == 100
    assert len(desk.asked) <= took_s * 50 + 1
    assert (await rig.max.get("/v1/agents/desk/inbox", count_only=True))["count"] == live >= len(sent) // 10
