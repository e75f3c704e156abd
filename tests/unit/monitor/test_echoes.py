"""How a host answers echoes: many in one call, the newest of each agent, and a pause between two calls."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import anyio
import pytest

from contracts.errors import Unavailable
from contracts.records import Echo
from monitor.echoes import Echoes
from monitor.ports import Gateway

Call = Mapping[str, str | None]


class Ear:
    """As much of a gateway as is told of echoes."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.is_away = False

    async def echo(self, due: Call) -> None:
        self.calls.append(due)
        if self.is_away:
            raise Unavailable("gateway_unreachable", "away")

    async def heard(self, calls: int) -> None:
        with anyio.fail_after(10):
            while len(self.calls) < calls:
                await anyio.sleep(0.005)


@pytest.fixture
def ear() -> Ear:
    return Ear()


@asynccontextmanager
async def answering(ear: Ear) -> AsyncIterator[Echoes]:
    echoes = Echoes(cast(Gateway, ear))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(echoes.run)
        yield echoes
        tasks.cancel_scope.cancel()


def echo(agent: int, name: str = "echo_1") -> Echo:
    return Echo(agent_id=f"agent_{agent}", echo_id=name)


async def test_the_echoes_of_two_hundred_agents_are_answered_in_one_call(ear: Ear) -> None:
    async with answering(ear) as echoes:
        for agent in range(200):
            echoes.hear(echo(agent))
        await ear.heard(1)
    assert ear.calls == [{f"agent_{agent}": "echo_1" for agent in range(200)}]


async def test_echoes_that_come_scattered_after_a_call_share_the_next(ear: Ear) -> None:
    async with answering(ear) as echoes:
        echoes.hear(echo(0))
        await ear.heard(1)
        for agent in range(1, 6):
            echoes.hear(echo(agent))
            await anyio.sleep(0.04)
        await ear.heard(2)
    assert [len(call) for call in ear.calls] == [1, 5]


async def test_more_than_the_gateway_takes_at_once_goes_in_several_calls(ear: Ear) -> None:
    async with answering(ear) as echoes:
        for agent in range(1_001):
            echoes.hear(echo(agent))
        await ear.heard(2)
    assert [len(call) for call in ear.calls] == [1_000, 1]


async def test_only_the_newest_echo_counts_and_an_answer_is_worth_more_than_a_wish(ear: Ear) -> None:
    async with answering(ear) as echoes:
        echoes.hear(echo(1, "echo_1"))
        echoes.hear(echo(1, "echo_2"))
        echoes.ask_for(["agent_1", "agent_2"])
        await ear.heard(1)
    assert ear.calls == [{"agent_1": "echo_2", "agent_2": None}]


async def test_what_cannot_be_told_is_dropped_and_the_next_is_told(ear: Ear) -> None:
    async with answering(ear) as echoes:
        ear.is_away = True
        echoes.hear(echo(1))
        await ear.heard(1)
        ear.is_away = False
        echoes.hear(echo(2))
        await ear.heard(2)
    assert ear.calls[1] == {"agent_2": "echo_1"}
