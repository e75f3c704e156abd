"""One winner among many who claim at once, and after random faults every message accounted for."""

import json
import random
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import anyio
import httpx
import pytest

from contracts.words import TERMINAL_STATES
from tests.program_caller import Json, assert_sound, code_of, in_parallel
from tests.programs import Programs
from tests.webhook_receiver import running_receiver

ENDS: Final = tuple(state.value for state in TERMINAL_STATES)
ROUNDS: Final = 7
PER_ROUND: Final = 5
ECHO: Final = """
import json, sys
print(json.dumps({"success": True, "result": json.loads(sys.stdin.readline())["message"]}))
"""


# --- one winner ----------------------------------------------------------------------------------------------------


def codes(answers: list[httpx.Response]) -> Counter[str]:
    return Counter("won" if answer.status_code == 200 else code_of(answer) for answer in answers)


async def test_of_fifty_workers_one_gets_the_lease(post: Programs) -> None:
    sent = await post.send(await post.agent("bg"))
    answers = await in_parallel(*[partial(post.lease, sent, f"worker-{number}") for number in range(50)])
    assert codes(answers) == {"won": 1, "already_claimed": 49}
    assert await post.types(sent) == ["accepted", "leased"]
    assert_sound(post.exchanges)


@pytest.mark.parametrize("headstart_s", [0, 0.05, 0.1])
async def test_of_fifty_workers_at_most_one_gets_the_lease_when_the_broker_dies_among_them(
    post: Programs, headstart_s: float
) -> None:
    agent = await post.agent("bg")
    sent = await post.send(agent)
    post.exchanges.clear()
    answers: list[httpx.Response] = []

    async def claim(number: int) -> None:
        answers.append(await post.lease(sent, f"worker-{number}"))

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(claim, number)
        await anyio.sleep(headstart_s)
        await post.crash_broker(0.3)
    # The winner whose answer was lost is told that the execution is taken, like everybody else.
    assert codes(answers) in ({"won": 1, "already_claimed": 49}, {"already_claimed": 50})
    assert await post.types(sent) == ["accepted", "leased"]
    assert any(each.status == 503 for each in post.exchanges), "nobody was refused: the broker was killed too late"
    assert_sound(post.exchanges)
    await post.assert_whole([sent])


async def test_of_twenty_live_sessions_one_wins_the_offer(post: Programs) -> None:
    agent = await post.agent("live")
    tokens = [await post.attach(agent, f"session-{number}") for number in range(20)]
    sent = await post.send(agent, "live")
    answers = await in_parallel(*[partial(post.live_claim, sent, token) for token in tokens])
    assert codes(answers) == {"won": 1, "already_claimed": 19}
    winner = next(answer.json()["message"]["claim"]["label"] for answer in answers if answer.status_code == 200)
    assert (await post.execution(sent))["claim"]["label"] == winner
    assert await post.types(sent) == ["accepted", "claimed"]


# --- conservation --------------------------------------------------------------------------------------------------


class Town:
    """Agents on every channel, those who work for them, and everything that was acknowledged to their senders."""

    def __init__(self, post: Programs, dice: random.Random) -> None:
        self.post = post
        self.dice = dice
        self.sent: dict[str, Json] = {}
        self.agents: dict[str, Json] = {}
        self.token = ""

    async def settle_in(self, webhook_url: str) -> None:
        post = self.post
        self.agents = {
            "live": await post.agent("live", "bg", claim_window_s=2),
            "bg": await post.agent("bg"),
            "webhook": await post.agent("webhook", webhook_url=webhook_url),
            "inbox": await post.agent("inbox"),
        }
        self.token = await post.attach(self.agents["live"])
        await post.start_monitor(self.agents["bg"], handler=ECHO)

    async def send_some(self) -> None:
        """A few messages down each channel, and a few offers without a fallback."""
        async with anyio.create_task_group() as group:
            for channel in self.agents:
                for _ in range(PER_ROUND):
                    group.start_soon(self._send, channel, {})
            for _ in range(PER_ROUND):
                group.start_soon(self._send, "live", {"live_fallback_mode": "none"})

    async def _send(self, channel: str, more: Json) -> None:
        await anyio.sleep(self.dice.random())
        key = secrets.token_hex(8)
        self.sent[key] = sent = await self.post.send(self.agents[channel], channel, key=key, **more)
        if sent["state"] == "offered" and self.dice.random() < 0.5:
            await self._claim(sent)

    async def _claim(self, sent: Json) -> None:
        """A session claims and answers; it may be too late for either."""
        answer = await self.post.live_claim(sent, self.token)
        if answer.status_code == 200:
            assert (await self.post.report(sent, executed_via="live")).status_code in {200, 409}

    async def work(self) -> None:
        """A worker of the live agent's fallbacks: lease, report, for ever."""
        body = {"agent": self.agents["live"]["id"], "worker_id": "town", "lease_s": 10}
        while True:
            answer = await self.post.call("POST", "/v1/executions/claim", body)
            leased = answer.json()
            if leased["claimed"]:
                report = await self.post.report(leased, lease=leased["lease"]["number"])
                assert report.status_code in {200, 409}
            else:
                await anyio.sleep(0.05)

    async def read_mail(self) -> None:
        """The reader of the inbox: take, acknowledge, for ever."""
        while True:
            inbox = await self.post.get(f"/v1/agents/{self.agents['inbox']['id']}/inbox")
            for message in inbox["messages"]:
                await self.post.post(f"/v1/messages/{message['id']}/ack")
            await anyio.sleep(0.05)


Harm = Callable[[Programs], Coroutine[Any, Any, None]]


async def crash_gateway(post: Programs) -> None:
    await post.restart(post.gateways[0])


async def crash_router(post: Programs) -> None:
    await post.restart(post.routers[0])


async def crash_monitor(post: Programs) -> None:
    assert post.monitor is not None
    await post.restart(post.monitor)


async def silence_broker(post: Programs) -> None:
    post.nats.pause()
    await anyio.sleep(1)
    post.nats.resume()


async def silence_store(post: Programs) -> None:
    post.redis.pause()
    await anyio.sleep(1)
    post.redis.resume()


async def silence_router(post: Programs) -> None:
    post.routers[1].pause()
    await anyio.sleep(1)
    post.routers[1].resume()


HARMS: Final[tuple[Harm, ...]] = (
    crash_gateway,
    crash_router,
    crash_monitor,
    Programs.crash_broker,
    Programs.crash_store,
    silence_broker,
    silence_store,
    silence_router,
)


async def test_after_random_faults_every_message_has_one_end_and_every_list_says_the_same(post: Programs) -> None:
    seed = random.SystemRandom().randrange(10**6)
    dice = random.Random(seed)  # noqa: S311 - repeatable on purpose
    harms = dice.sample(HARMS, ROUNDS)
    sys.stdout.write(f"seed {seed}: {json.dumps([harm.__name__ for harm in harms])}\n")
    with running_receiver() as receiver:
        town = Town(post, dice)
        await town.settle_in(receiver.url)
        async with anyio.create_task_group() as workers:
            workers.start_soon(town.work)
            workers.start_soon(town.read_mail)
            for harm in harms:
                async with anyio.create_task_group() as round_:
                    round_.start_soon(town.send_some)
                    round_.start_soon(harm, post)
            await post.heal()
            for sent in town.sent.values():
                await post.until(sent, *ENDS, timeout_s=30)
            workers.cancel_scope.cancel()
    assert len({sent["id"] for sent in town.sent.values()}) == ROUNDS * PER_ROUND * 5
    books = await post.assert_whole(town.sent.values())
    for agent in town.agents.values():
        listed = [view async for view in post.pages("/v1/executions", "executions", agent=agent["id"])]
        assert Counter(view["state"] for view in listed) == books.states(agent)
        assert {view["id"] for view in listed} == {f"msg_{ulid}" for ulid in books.of(agent)}
    assert_sound(post.exchanges)
