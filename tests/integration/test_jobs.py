"""Jobs below a project: claimed by one worker, kept by beats, completed once or tried again; an unmodified worker."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from deepnoodle.mobius import Client, LeaseLostError, Worker, WorkerConfig
from deepnoodle.mobius._api.models import JobClaim, JobCompleteRequest, JobFenceRequest, JobHeartbeat, Status

from gateway.claimable import Look
from gateway.job_desk import JobWish
from gateway.jobs import HEARTBEAT_S
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Caller, Json, Rig, code_of, running_rig
from tests.http_server import served

PROJECT = "/v1/projects/max"
JOBS = f"{PROJECT}/jobs"


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


async def account(rig: Rig) -> str:
    made = await rig.max.post(f"{PROJECT}/service-accounts", {"name": "workers"}, status=201)
    account_id: str = made["id"]
    return account_id


async def agent(rig: Rig, name: str, account_id: str, **more: object) -> Json:
    body = {"service_account_id": account_id, "name": name, **more}
    return await rig.max.post(f"{PROJECT}/agents", body, status=201)


async def worker_key(rig: Rig, account_id: str) -> Caller:
    minted = await rig.max.post("/v1/keys", {"service_account_id": account_id}, status=201)
    return Caller(http=rig.http, key=minted["key"], owner="max")


async def claim(caller: Caller, worker: str = "w1", **more: object) -> httpx.Response:
    return await caller.call("POST", f"{JOBS}/claim", json={"worker_id": worker, **more})


async def job(caller: Caller, worker: str = "w1", **more: object) -> Json:
    answer = await claim(caller, worker, **more)
    assert answer.status_code == 200, answer.text
    JobClaim.model_validate(answer.json())
    found: Json = answer.json()
    return found


async def say(caller: Caller, found: Json, verb: str, **more: object) -> httpx.Response:
    body = {"worker_id": "w1", "attempt": found["attempt"], **more}
    return await caller.call("POST", f"{JOBS}/{found['job_id']}/{verb}", json=body)


def encoded(output: bytes) -> str:
    return base64.b64encode(output).decode()


async def test_a_job_is_claimed_kept_and_completed_once(rig: Rig) -> None:
    made = await agent(rig, "doc-summarizer", await account(rig))
    sent = await rig.max.send(
        "doc-summarizer", subject="Weekly", metadata={"action": "summarize", "parameters": {"pages": 3}}
    )

    found = await job(rig.max)
    beaten = await say(rig.max, found, "heartbeat")
    done = await say(rig.max, found, "complete", status="completed", result_b64=encoded(b'{"words": 120}'))
    again = await say(rig.max, found, "complete", status="completed", result_b64=encoded(b'{"words": 120}'))
    other = await say(rig.max, found, "complete", status="completed", result_b64=encoded(b"[]"))

    assert sent["effective_delivery_mode"] == "bg"
    assert found | {"lease_expires_at": ""} == {
        "job_id": sent["execution_id"],
        "run_id": sent["id"],
        "workflow_name": "Weekly",
        "step_name": "doc-summarizer",
        "action": "summarize",
        "queue": "default",
        "attempt": 1,
        "max_attempts": 3,
        "parameters": {"pages": 3},
        "agent_id": made["id"],
        "agent_session_id": None,
        "heartbeat_interval_seconds": HEARTBEAT_S,
        "lease_expires_at": "",
    }
    assert JobHeartbeat.model_validate(beaten.json()).directives.should_cancel is False
    assert beaten.json()["lease_expires_at"] < found["lease_expires_at"]
    assert (done.status_code, again.status_code, code_of(other)) == (204, 204, "outcome_conflict")
    view = await rig.max.get(f"/v1/messages/{sent['id']}")
    assert (view["state"], view["outcome"]["result"]) == ("delivered", {"words": 120})
    assert view["delivery_route"] == "background_direct"


@pytest.mark.parametrize(
    ("output", "result"),
    [
        (b'"text"', "text"),
        (b"null", None),
        (b"plain words", "plain words"),
        (b'1,"more":2', '1,"more":2'),
        (b"\xff\x00", {"base64": encoded(b"\xff\x00")}),
        (b"\x1b" * 80_000, {"base64": encoded(b"\x1b" * 80_000)}),
        (b'\n"' * 45_000, '\n"' * 45_000),
    ],
)
async def test_what_a_job_puts_out_is_kept_as_what_it_says(rig: Rig, output: bytes, result: Any) -> None:
    await agent(rig, "a", await account(rig))
    sent = await rig.max.send("a")

    await say(rig.max, await job(rig.max), "complete", status="completed", result_b64=encoded(output))

    assert (await rig.max.get(f"/v1/messages/{sent['id']}"))["outcome"]["result"] == result


async def test_only_who_claimed_an_attempt_speaks_for_it(rig: Rig) -> None:
    await agent(rig, "a", await account(rig))
    await rig.max.send("a")
    found = await job(rig.max)

    verbs: list[tuple[str, Json]] = [
        ("heartbeat", {}),
        ("complete", {"status": "completed"}),
        ("complete", {"status": "failed"}),
        ("events", {"events": [{"type": "t"}]}),
    ]
    wrong: list[Json] = [{"worker_id": "w2"}, {"attempt": 2}]
    foreign = [await say(rig.max, found, verb, **{**more, **each}) for each in wrong for verb, more in verbs]
    absent = await say(rig.max, {**found, "job_id": "exec_01k5z3w8p2c4d6f8h0j2m4n6q8"}, "heartbeat")
    strangers = await rig.eve.call(
        "POST", f"{JOBS}/{found['job_id']}/heartbeat", json={"worker_id": "w1", "attempt": 1}
    )
    own_project = await rig.eve.call(
        "POST", f"/v1/projects/eve/jobs/{found['job_id']}/heartbeat", json={"worker_id": "w1", "attempt": 1}
    )

    assert {(each.status_code, code_of(each)) for each in foreign} == {(409, "stale_lease")}
    assert [code_of(each) for each in (absent, strangers, own_project)] == [
        "execution_not_found",
        "project_not_found",
        "execution_not_found",
    ]
    assert (await say(rig.max, found, "heartbeat")).status_code == 200


async def test_a_failed_attempt_is_followed_by_another_one(rig: Rig) -> None:
    await agent(rig, "a", await account(rig))
    sent = await rig.max.send("a")
    first = await job(rig.max)

    failed = await say(rig.max, first, "complete", status="failed", error_type="TimeoutError", error_message="too slow")
    again = await say(rig.max, first, "complete", status="failed", error_type="TimeoutError", error_message="too slow")
    second = await job(rig.max, wait_seconds=20)
    late = await say(rig.max, first, "heartbeat")

    assert (failed.status_code, again.status_code) == (204, 204)
    assert (second["job_id"], second["attempt"], late.status_code) == (first["job_id"], 2, 409)
    assert "TimeoutError: too slow" in (await rig.max.get(f"/v1/messages/{sent['id']}"))["last_error"]


async def test_nothing_to_do_is_no_content_at_once_and_after_the_wait(rig: Rig) -> None:
    await agent(rig, "a", await account(rig))

    assert (await claim(rig.max)).status_code == 204
    assert (await claim(rig.max, agent_id="a", wait_seconds=1)).status_code == 204


@pytest.mark.parametrize("narrowing", [{}, {"agent_id": "a"}, {"where": {"kind": "llm"}}])
async def test_a_waiting_worker_is_given_the_job_that_comes(rig: Rig, narrowing: Json) -> None:
    await agent(rig, "a", await account(rig), kind="llm")
    answers: list[httpx.Response] = []

    async def wait() -> None:
        answers.append(await claim(rig.max, wait_seconds=30, **narrowing))

    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            while not rig.gateway.app.state.rooms.holds.count:
                await anyio.sleep(0.01)
            sent = await rig.max.send("a")

    assert [each.json()["job_id"] for each in answers] == [sent["execution_id"]]


@pytest.mark.parametrize("narrowing", [{"where": {"kind": "nobody"}}, {"queues": ["empty"]}])
async def test_a_worker_for_whom_there_is_nothing_is_not_told_so_before_its_time(rig: Rig, narrowing: Json) -> None:
    holds, answers = rig.gateway.app.state.rooms.holds, []

    async def wait() -> None:
        answers.append((await claim(rig.max, wait_seconds=30, **narrowing)).status_code)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            while not holds.count and not answers:
                await anyio.sleep(0.01)
            assert answers == []
            holds.release()

    assert answers == [204]


async def test_other_workers_jobs_hide_none_however_many_they_are(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.claimable.PAGE_ROWS", 2)
    monkeypatch.setattr("gateway.claimable.MAX_ROWS", 4)
    monkeypatch.setattr("gateway.claimable.LAST_ROWS", 1)
    owned_by = await account(rig)
    for name in ("idle", "other", "wanted"):
        await agent(rig, name, owned_by, kind=name)
    for _ in range(4):
        await rig.max.send("idle")
        await rig.max.send("other")
        await rig.max.send("wanted", metadata={"queue": "day"})
    sent = await rig.max.send("wanted", metadata={"queue": "night"})
    await rig.max.send("other")
    await rig.max.patch(f"{PROJECT}/agents/idle", {"status": "inactive"})

    found = await job(rig.max, queues=["night"], where={"kind": ["wanted", "idle"]}, wait_seconds=20)
    others = [await job(rig.max, queues=["default"], wait_seconds=20) for _ in range(5)]

    assert found["job_id"] == sent["execution_id"]
    assert {each["step_name"] for each in others} == {"other"}


async def test_a_worker_that_hangs_up_before_its_job_is_chosen_takes_none(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent(rig, "a", await account(rig))
    rooms, gone = rig.gateway.app.state.rooms, anyio.Event()
    look = rooms.claimables.look

    async def slow_look(*args: Any, **options: Any) -> Look:
        found: Look = await look(*args, **options)
        if rooms.holds.count:
            await rig.max.send("a")
            gone.set()
            await anyio.sleep(0.1)
            found = await look(*args, **options)
        return found

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def check() -> None: ...

    monkeypatch.setattr(rooms.claimables, "look", slow_look)
    caller = await rooms.authenticator.principal([(b"authorization", f"Bearer {rig.max.key}".encode())])
    wish = JobWish(owner="max", worker_id="w1", wait_s=10)

    assert await rooms.jobs.claim(wish, caller, receive, check) is None
    monkeypatch.undo()
    assert (await job(rig.max, "w2"))["attempt"] == 1


async def test_one_job_is_one_workers_however_many_wait(rig: Rig) -> None:
    await agent(rig, "a", await account(rig))
    claimed: list[str] = []

    async def wait(worker: str) -> None:
        claimed.append((await job(rig.max, worker, wait_seconds=30))["job_id"])

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(wait, f"w{number}")
            while rig.gateway.app.state.rooms.holds.count < 10:
                await anyio.sleep(0.01)
            sent = [(await rig.max.send("a"))["execution_id"] for _ in range(10)]

    assert sorted(claimed) == sorted(sent)


async def test_jobs_are_selected_by_queue_action_agent_kind_and_capability(rig: Rig) -> None:
    owned_by = await account(rig)
    await agent(rig, "small", owned_by, kind="llm", capabilities={"model": "small-1"})
    await agent(rig, "robot", owned_by, kind="rpa")
    plain = await rig.max.send("robot")
    queued = await rig.max.send("robot", metadata={"queue": "night", "task": "report"})
    small = await rig.max.send("small")

    assert (await claim(rig.max, queues=["elsewhere"])).status_code == 204
    assert (await claim(rig.max, actions=["translate"])).status_code == 204
    assert (await claim(rig.max, where={"capabilities.model": "large-1"})).status_code == 204
    assert (await job(rig.max, where={"capabilities.model": ["small-1"], "kind": "llm"}))["job_id"] == small[
        "execution_id"
    ]
    assert (await job(rig.max, queues=["night"], actions=["report"]))["job_id"] == queued["execution_id"]
    assert (await job(rig.max, agent_id="robot"))["job_id"] == plain["execution_id"]


async def test_a_service_accounts_worker_claims_for_its_own_agents_alone(rig: Rig) -> None:
    mine = await account(rig)
    key = await worker_key(rig, mine)
    await agent(rig, "mine", mine)
    await rig.max.agent("another", "bg")
    await rig.max.send("another", delivery_mode="bg")

    none = await claim(key)
    absent = await claim(key, agent_id="another")
    sent = await rig.max.send("mine")
    found = await job(key)
    done = await say(key, found, "complete", status="completed")

    assert (none.status_code, code_of(absent)) == (204, "agent_not_found")
    assert (found["job_id"], done.status_code) == (sent["execution_id"], 204)


async def test_a_wait_for_a_job_ends_with_its_key(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.holds.CHECK_EVERY_S", 0.1)
    owned_by = await account(rig)
    await agent(rig, "a", owned_by)
    key = await worker_key(rig, owned_by)
    answers: list[httpx.Response] = []

    async def wait() -> None:
        answers.append(await claim(key, wait_seconds=30))

    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            while not rig.gateway.app.state.rooms.holds.count:
                await anyio.sleep(0.01)
            await rig.max.delete(f"/v1/keys/{key.key_id}", status=204)

    assert [each.status_code for each in answers] == [204]


async def test_a_worker_is_given_no_more_than_it_can_begin_until_its_hands_are_free(rig: Rig) -> None:
    await agent(rig, "a", await account(rig))
    for _ in range(4):
        await rig.max.send("a")
    first, second = [await job(rig.max, concurrency_limit=2) for _ in range(2)]

    full = await claim(rig.max, concurrency_limit=2)
    elsewhere = await job(rig.max, "w2", concurrency_limit=2)
    await say(rig.max, first, "complete", status="completed")
    third = await job(rig.max, concurrency_limit=2)
    answers: list[httpx.Response] = []

    async def wait() -> None:
        answers.append(await claim(rig.max, concurrency_limit=2, wait_seconds=20))

    await rig.max.send("a")
    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            while not rig.gateway.app.state.rooms.holds.count:
                await anyio.sleep(0.01)
            await say(rig.max, second, "complete", status="failed")

    assert full.status_code == 204
    assert len({each["job_id"] for each in (first, second, elsewhere, third)}) == 4
    assert [each.status_code for each in answers] == [200]


async def test_an_inactive_agent_gets_no_new_job_and_finishes_what_it_has(rig: Rig) -> None:
    await agent(rig, "a", await account(rig))
    await rig.max.send("a")
    waiting = await rig.max.send("a")
    held = await job(rig.max)
    await rig.max.patch(f"{PROJECT}/agents/a", {"status": "inactive"})

    named, any_ = await claim(rig.max, agent_id="a"), await claim(rig.max)
    beaten, done = await say(rig.max, held, "heartbeat"), await say(rig.max, held, "complete", status="completed")
    await rig.max.patch(f"{PROJECT}/agents/a", {"status": "active"})

    assert (code_of(named), any_.status_code) == ("agent_inactive", 204)
    assert (beaten.status_code, done.status_code) == (200, 204)
    assert (await job(rig.max))["job_id"] == waiting["execution_id"]


async def test_a_claim_may_name_a_connected_session_and_none_that_is_over(rig: Rig) -> None:
    await agent(rig, "a", await account(rig))
    await rig.max.send("a")
    session = await rig.max.post(f"{PROJECT}/agents/a/sessions", {"transport": "polling"}, status=201)
    over = await rig.max.post(f"{PROJECT}/agents/a/sessions", {"transport": "polling"}, status=201)
    await rig.max.post(f"{PROJECT}/agents/sessions/{over['id']}/disconnect")

    refused = await claim(rig.max, agent_session_id=over["id"])
    absent = await claim(rig.max, agent_session_id="sess_01k5z3w8p2c4d6f8h0j2m4n6q8")
    found = await job(rig.max, agent_session_id=session["id"])

    assert (code_of(refused), absent.status_code) == ("session_ended", 404)
    assert found["agent_session_id"] == session["id"]


async def test_what_a_worker_tells_is_one_event_or_none(rig: Rig) -> None:
    await agent(rig, "a", await account(rig))
    await rig.max.send("a")
    found = await job(rig.max)
    events = [{"type": "progress", "payload": {"percent": 40}}, {"type": "progress", "payload": {"percent": 80}}]

    told = await say(rig.max, found, "events", events=events)
    large = await say(rig.max, found, "events", events=[*events, {"type": "big", "payload": {"x": "x" * 17_000}}])
    reserved = await say(rig.max, found, "events", events=[{"type": "mobius.x"}])

    assert (told.status_code, large.status_code, code_of(large)) == (204, 413, "event_too_large")
    assert code_of(reserved) == "reserved_event"
    page = await rig.max.get("/v1/events", type="job.told")
    [event] = page["events"]
    assert event["data"]["events"] == events
    assert (event["subject"], event["data"]["worker_id"], event["data"]["attempt"]) == (found["job_id"], "w1", 1)


async def test_workers_are_listed_with_what_they_execute(rig: Rig) -> None:
    await claim(rig.max, "w7", actions=["summarize"])

    [worker] = (await rig.max.get(f"{PROJECT}/workers"))["items"]

    assert (worker["id"], worker["capabilities"], worker["stale"]) == ("w7", ["summarize"], False)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"worker_id": ""},
        {"worker_id": "w", "wait_seconds": -1},
        {"worker_id": "w", "queues": "night"},
        {"worker_id": "w", "where": {}},
        {"worker_id": "w", "where": {"password": "x"}},
        {"worker_id": "w\n"},
    ],
)
async def test_a_claim_that_cannot_be_is_refused(rig: Rig, body: Json) -> None:
    answer = await rig.max.call("POST", f"{JOBS}/claim", json=body)

    assert 400 <= answer.status_code < 500, answer.text
    code_of(answer)


async def test_bad_base64_is_refused_and_the_job_goes_on(rig: Rig) -> None:
    await agent(rig, "a", await account(rig))
    await rig.max.send("a")
    found = await job(rig.max)

    refused = await say(rig.max, found, "complete", status="completed", result_b64="not base64!")

    assert code_of(refused) == "invalid_base64"
    assert (await say(rig.max, found, "heartbeat")).status_code == 200


# --- an unmodified worker of theirs ---------------------------------------------------------------------------------


async def test_their_worker_claims_beats_tells_and_completes(
    rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    owned_by = await account(rig)
    await agent(rig, "doc-summarizer", owned_by)
    key = await worker_key(rig, owned_by)
    sent = [
        await rig.max.send("doc-summarizer", metadata={"action": "summarize", "parameters": {"n": n}}) for n in range(3)
    ]
    failing = await rig.max.send("doc-summarizer", metadata={"action": "explode"})

    async with served(rig, nats_server, redis_server, prefix) as (_, port):
        with Client(key.key, base_url=f"http://127.0.0.1:{port}", project="max") as client:
            worker = _worker(client)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, worker.run)
                views = [await _ended(rig, each["id"]) for each in sent]
                given_up = await _tried(rig, failing["id"])
                worker.stop()

    assert [view["outcome"]["result"] for view in views] == [{"twice": 0}, {"twice": 2}, {"twice": 4}]
    assert given_up.endswith("Error: no such luck")
    told = (await rig.max.get("/v1/events", type="job.told"))["events"]
    assert {event["data"]["events"][0]["payload"]["n"] for event in told} == {0, 1, 2}


async def test_their_client_learns_that_a_lease_is_lost(
    rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    await agent(rig, "a", await account(rig))
    await rig.max.send("a")
    found = await job(rig.max)

    async with served(rig, nats_server, redis_server, prefix) as (_, port):
        with Client(rig.max.key, base_url=f"http://127.0.0.1:{port}", project="max") as client:
            fence = JobFenceRequest(worker_id="w1", attempt=found["attempt"] + 1)
            done = JobCompleteRequest(worker_id="another", attempt=found["attempt"], status=Status.completed)
            with pytest.raises(LeaseLostError):
                await anyio.to_thread.run_sync(client.heartbeat_job, found["job_id"], fence)
            with pytest.raises(LeaseLostError):
                await anyio.to_thread.run_sync(client.complete_job, found["job_id"], done)


def _worker(client: Client) -> Worker:
    worker = Worker(client, WorkerConfig(worker_id="sdk", concurrency=2, poll_wait_seconds=1))

    def summarize(context: Any, parameters: Json) -> Json:
        context.emit_event("progress", parameters)
        return {"twice": parameters["n"] * 2}

    def explode(_: Json) -> None:
        raise RuntimeError("no such luck")

    worker.register("summarize", summarize)
    worker.register("explode", explode)
    return worker


async def _ended(rig: Rig, message_id: str) -> Json:
    with anyio.fail_after(30):
        while not (view := await rig.max.get(f"/v1/messages/{message_id}"))["terminal"]:
            await anyio.sleep(0.05)
    return view


async def _tried(rig: Rig, message_id: str) -> str:
    with anyio.fail_after(30):
        while not (view := await rig.max.get(f"/v1/messages/{message_id}"))["last_error"]:
            await anyio.sleep(0.05)
    error: str = view["last_error"]
    return error
