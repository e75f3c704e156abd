"""Holders over HTTP: what they say to be in context, once each, and what is due to be held at all."""

from collections.abc import AsyncIterator
from datetime import datetime

import anyio
import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, code_of, running_rig
from tests.installation import MovableClock


class StillClock(MovableClock):
    """The time of its making, and as much more as a test has moved it on: nothing falls due on a slow machine."""

    def __init__(self) -> None:
        super().__init__()
        self._start = super().now()

    def now(self) -> datetime:
        return self._start + self._ahead


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
async def rig(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str, clock: StillClock
) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix, clock=clock) as running:
        await running.max.agent("mac", "live", "bg", "inbox", preferred_contact="live")
        yield running


async def leased(rig: Rig, **more: object) -> tuple[str, Json]:
    """A bg execution's path and what it was sent as, under its first lease."""
    sent = await rig.max.send("mac", delivery_mode="bg")
    path = f"/v1/executions/{sent['execution_id']}"
    await rig.max.post(f"{path}/claim", {"worker_id": "w", "lease_s": 60, **more})
    return path, sent


async def stages(rig: Rig, sent: Json) -> list[str]:
    return [each["stage"] for each in (await rig.max.get(f"/v1/messages/{sent['id']}/receipts"))["receipts"]]


async def refused(rig: Rig, path: str, body: Json | None = None) -> tuple[int, str]:
    answer = await rig.max.call("POST", f"{path}/in-context", json=body or {})
    return answer.status_code, code_of(answer)


# --- in context ----------------------------------------------------------------------------------------------------


async def test_a_session_that_claimed_says_it_once_and_it_stands_before_its_outcome(rig: Rig) -> None:
    session = await rig.max.session("mac")
    sent = await rig.max.send("mac")
    path = f"/v1/executions/{sent['execution_id']}"

    early = await refused(rig, path)
    await rig.max.post(f"{path}/live-claim", {"session_token": session["session_token"]})
    unsaid = await stages(rig, sent)
    said = await rig.max.post(f"{path}/in-context")
    again = await rig.max.post(f"{path}/in-context", {})
    foreign = await refused(rig, path, {"lease": 1})
    await rig.max.post(f"{path}/outcome", {"success": True, "executed_via": "live"})
    late = await refused(rig, path)

    assert (early, foreign, late) == ((409, "not_claimed"), (409, "stale_lease"), (409, "execution_closed"))
    assert unsaid == ["accepted", "routed", "offered", "claimed"]
    assert await stages(rig, sent) == [*unsaid, "in_context", "outcome"]
    assert said["in_context_at"] == again["in_context_at"] == said["message"]["in_context_at"]
    history = await rig.max.get(path)
    assert [each["type"] for each in history["events"]] == ["accepted", "claimed", "in_context", "outcome_recorded"]
    assert history["in_context_at"] == said["in_context_at"]


async def test_a_worker_says_it_under_its_lease_and_anew_under_the_next(rig: Rig, clock: StillClock) -> None:
    path, sent = await leased(rig)

    without, other = await refused(rig, path), await refused(rig, path, {"lease": 2})
    first = await rig.max.post(f"{path}/in-context", {"lease": 1})
    released = await rig.max.post(f"{path}/release", {"lease": 1, "reason": "exit_code"})
    waiting = await refused(rig, path, {"lease": 1})
    clock.move(seconds=3)
    await rig.max.post(f"{path}/claim", {"worker_id": "w", "lease_s": 60})
    late = await refused(rig, path, {"lease": 1})
    second = await rig.max.post(f"{path}/in-context", {"lease": 2})

    assert {without, other, waiting, late} == {(409, "stale_lease")}
    assert (released["in_context_at"], second["in_context_at"] > first["in_context_at"]) == (None, True)
    assert (await stages(rig, sent))[2:] == ["leased", "in_context", "leased", "in_context"]


async def test_many_who_say_it_at_once_make_one_event(rig: Rig) -> None:
    path, _ = await leased(rig)
    answers: list[str] = []

    async def say() -> None:
        answers.append((await rig.max.post(f"{path}/in-context", {"lease": 1}))["in_context_at"])

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(say)

    assert (len(answers), len(set(answers))) == (8, 1)
    assert [each["type"] for each in (await rig.max.get(path))["events"]].count("in_context") == 1


async def test_the_peers_worker_needs_no_number(rig: Rig) -> None:
    path, _ = await leased(rig, lease_s=None)

    assert (await rig.max.post(f"{path}/in-context"))["in_context_at"]


async def test_an_inbox_says_read_and_never_in_context(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="inbox")
    path = f"/v1/executions/{sent['execution_id']}"
    await rig.max.get("/v1/agents/mac/inbox")

    assert await refused(rig, path) == (409, "not_claimed")
    await rig.max.post(f"/v1/messages/{sent['id']}/read")
    assert await refused(rig, path) == (409, "not_claimed")
    assert await stages(rig, sent) == ["accepted", "routed", "handed_out", "read"]


async def test_somebody_elses_execution_looks_like_none(rig: Rig) -> None:
    path, _ = await leased(rig)

    foreign = await rig.eve.call("POST", f"{path}/in-context", json={"lease": 1})
    absent = await rig.eve.call("POST", f"/v1/executions/exec_{'0' * 26}/in-context", json={"lease": 1})

    assert (foreign.status_code, code_of(foreign)) == (404, "execution_not_found")
    assert foreign.content == absent.content


# --- what is due ---------------------------------------------------------------------------------------------------


async def listed(rig: Rig, **query: str) -> list[str]:
    return [each["message_id"] for each in (await rig.max.get("/v1/executions/claimable", **query))["executions"]]


@pytest.mark.parametrize("query", [{}, {"agent": "mac"}])
async def test_only_what_is_due_is_listed_and_what_is_listed_can_be_claimed(
    rig: Rig, clock: StillClock, query: dict[str, str]
) -> None:
    path, sent = await leased(rig)
    fresh = await rig.max.send("mac", delivery_mode="bg")
    released = await rig.max.post(f"{path}/release", {"lease": 1, "reason": "exit_code"})

    execution = await rig.max.get(path)
    assert released["retry_at"] == execution["retry_at"] > execution["updated_at"]
    assert await listed(rig, **query) == [fresh["id"]]
    assert (await rig.max.post("/v1/executions/claim", {"agent": "mac", "worker_id": "w"}))["message_id"] == fresh["id"]
    assert await rig.max.post("/v1/executions/claim", {"agent": "mac", "worker_id": "w"}) == {"claimed": False}

    clock.move(seconds=3)

    assert await listed(rig, **query) == [sent["id"]]
    assert (await rig.max.post(f"{path}/claim", {"worker_id": "w"}))["attempt"] == 2
    assert (await rig.max.get(path))["retry_at"] is None


async def test_attempts_that_wait_do_not_hide_the_ones_that_are_due(rig: Rig) -> None:
    for _ in range(51):
        path, _ = await leased(rig)
        await rig.max.post(f"{path}/release", {"lease": 1, "reason": "exit_code"})
    fresh = await rig.max.send("mac", delivery_mode="bg")

    taken = await rig.max.post("/v1/executions/claim", {"agent": "mac", "worker_id": "w"})

    assert await listed(rig, agent="mac") == []
    assert (taken["claimed"], taken["message_id"]) == (True, fresh["id"])


async def test_what_has_expired_is_not_claimable_any_more(rig: Rig, clock: StillClock) -> None:
    await rig.max.send("mac", delivery_mode="bg", ttl_s=60)

    clock.move(seconds=61)

    assert await listed(rig, agent="mac") == []
