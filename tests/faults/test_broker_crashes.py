"""The broker is killed and comes back, at each stage: nothing is lost, nobody wins twice, nobody is left hanging."""

from functools import partial

import anyio
import httpx

from tests.program_caller import Json, assert_sound, code_of, in_parallel, met
from tests.programs import Programs, is_running
from tests.webhook_receiver import running_receiver

ECHO = """
import json, sys
print(json.dumps({"success": True, "result": json.loads(sys.stdin.readline())["message"]}))
"""
LOAD = 120


async def test_a_broker_killed_three_times_under_load_loses_no_acknowledged_message(post: Programs) -> None:
    agent = await post.agent("inbox")
    async with post.sending(agent, LOAD) as acknowledged:
        for progress in (20, 50, 80):
            await met(lambda: len(acknowledged) >= progress)  # noqa: B023 - awaited in this round
            await post.crash_broker()
    books = await post.assert_whole(acknowledged.values())
    assert len(books.of(agent)) == len({each["id"] for each in acknowledged.values()}) == LOAD
    assert any(each.status == 503 for each in post.exchanges), "nobody was refused: the broker was killed too late"
    assert_sound(post.exchanges)


async def test_a_broker_killed_inside_the_window_decides_between_claim_and_fallback_once(post: Programs) -> None:
    agent = await post.agent("live", "bg")
    tokens = [await post.attach(agent, label) for label in ("one", "two")]
    async with post.sending(agent, 12, "live", claim_window_s=1) as lapsing:
        pass
    async with post.sending(agent, 12, "live", claim_window_s=10) as claimed:
        pass

    async def race(sent: Json) -> None:
        answers = await in_parallel(*[partial(post.live_claim, sent, token) for token in tokens])
        assert sorted(answer.status_code for answer in answers) == [200, 409]

    async with anyio.create_task_group() as group:
        group.start_soon(post.crash_broker, 1.5)
        await met(lambda: not is_running(post.nats.pid))
        for each in claimed.values():
            group.start_soon(race, each)
    for each in lapsing.values():
        await post.until(each, "queued")
        assert await post.types(each) == ["accepted", "fell_back"]
    for each in claimed.values():
        assert await post.types(each) == ["accepted", "claimed"]
    await post.assert_whole([*lapsing.values(), *claimed.values()])
    assert_sound(post.exchanges)


async def test_a_broker_killed_while_workers_race_leases_every_execution_once(post: Programs) -> None:
    agent = await post.agent("bg")
    async with post.sending(agent, 20) as waiting:
        pass
    winners: dict[str, list[str]] = {key: [] for key in waiting}

    async def race(key: str, worker: str) -> None:
        answer = await post.lease(waiting[key], worker)
        if answer.status_code == 200:
            winners[key].append(worker)
        else:
            assert code_of(answer) == "already_claimed"

    async with anyio.create_task_group() as group:
        for key in waiting:
            for worker in ("w1", "w2", "w3"):
                group.start_soon(race, key, worker)
        await met(lambda: any(winners.values()))
        await post.crash_broker()
    for key, sent in waiting.items():
        leases = [event["lease"] for event in await post.events(sent) if event["type"] == "leased"]
        # A worker whose answer was lost is told that the execution is taken: by itself, or by another.
        assert [lease["holder"] for lease in leases] == (winners[key] or [leases[0]["holder"]])
    await post.assert_whole(waiting.values())
    assert_sound(post.exchanges)


async def test_a_broker_killed_at_the_outcome_records_each_outcome_once(post: Programs) -> None:
    agent = await post.agent("bg")
    async with post.sending(agent, 20) as waiting:
        pass
    sent = list(waiting.values())
    for each in sent:
        assert (await post.lease(each)).status_code == 200
    reported: list[int] = []

    async def report(each: Json) -> None:
        reported.append((await post.report(each, lease=1)).status_code)

    async with anyio.create_task_group() as group:
        for each in sent:
            group.start_soon(report, each)
        await met(lambda: len(reported) >= 2)
        await post.crash_broker()
    assert reported == [200] * len(sent)
    for each in sent:
        assert (await post.report(each, lease=1)).status_code == 200
        assert code_of(await post.report(each, lease=1, result="other")) == "outcome_conflict"
        assert await post.types(each) == ["accepted", "leased", "outcome_recorded"]
    await post.assert_whole(sent)
    assert_sound(post.exchanges)


async def test_a_broker_killed_while_webhooks_are_posted_has_each_answer_recorded_when_it_is_back(
    post: Programs,
) -> None:
    with running_receiver(delay_s=0.5) as receiver:
        agent = await post.agent("webhook", webhook_url=receiver.url)
        async with post.sending(agent, 8) as sent:
            pass
        await met(lambda: len(receiver.heard) >= 6)
        await post.crash_broker()
        for each in sent.values():
            # A lease lasts 25 s: before that nobody would try again.
            await post.until(each, "delivered", timeout_s=8)
            assert await post.types(each) == ["accepted", "leased", "outcome_recorded"]
    assert sorted(headers["webhook-id"] for headers in receiver.heard) == sorted(each["id"] for each in sent.values())
    await post.assert_whole(sent.values())


async def test_a_monitor_hears_its_pushes_again_after_the_broker_came_back(post: Programs) -> None:
    agent = await post.agent("bg")
    await post.start_monitor(agent, handler=ECHO, poll_every_s=600)
    await post.crash_broker()
    sent = await post.send(agent)
    # What is pushed while the monitor reconnects is found by its look around afterwards; this one comes later.
    await post.until(sent, "delivered")
    pushed = await post.send(agent)
    await post.until(pushed, "delivered")
    await post.assert_whole([sent, pushed])


async def test_a_sender_who_waits_when_the_broker_dies_hears_of_the_acceptance_and_of_the_outcome_when_asking_again(
    post: Programs,
) -> None:
    agent = await post.agent("bg")
    answers: list[httpx.Response] = []

    async def send_and_wait() -> None:
        body = {"to": agent["id"], "message": "And?", "delivery_mode": "bg"}
        headers = {"Idempotency-Key": "waits-for-the-outcome"}
        answer = await post.call("POST", "/v1/messages", body, headers=headers, wait="outcome", timeout_s=10)
        answers.append(answer)

    async with anyio.create_task_group() as group:
        group.start_soon(send_and_wait)
        sent = await the_only_execution(post, agent)
        await post.crash_broker()
        assert (await post.lease(sent)).status_code == 200
        assert (await post.report(sent, lease=1)).status_code == 200
    await send_and_wait()
    assert [answer.status_code for answer in answers] == [201, 200]
    assert {answer.json()["id"] for answer in answers} == {sent["id"]}
    assert (answers[1].json()["state"], answers[1].json()["waited"]["reached"]) == ("delivered", True)
    assert_sound(post.exchanges)


async def the_only_execution(post: Programs, agent: Json) -> Json:
    while not (listed := (await post.get("/v1/executions", agent=agent["id"]))["executions"]):
        await anyio.sleep(0.02)
    found: Json = listed[0]
    return found
