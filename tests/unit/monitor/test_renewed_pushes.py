"""Credentials renewed before they end: the next connection stands before the one in use goes, come what may."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from contracts.errors import NotFound, PostroomError, Unauthenticated, Unavailable
from contracts.records import Echo, Envelope
from monitor.ports import BrokerLogin
from monitor.renewed_pushes import RenewedPushes

AGENT, OTHER = "agent_aaaaaaaaaaaa", "agent_bbbbbbbbbbbb"
SUBJECTS = [f"live.{AGENT}.>", f"bg.{AGENT}.>", f"live.{OTHER}.>"]
DEADLINE_S = 10


@dataclass
class Feed:
    """One connection: what happened to it is noted in the order it happened in."""

    world: "World"
    name: str
    url: str
    is_speaking: bool = False

    async def follow(
        self,
        subjects: Sequence[str],
        heard: Callable[[Envelope], None],
        subscribed: Callable[[], None],
        echoed: Callable[[Echo], None] = lambda _: None,
    ) -> None:
        self.world.notes.append(f"open {self.name}")
        self.world.subjects = list(subjects)
        try:
            if self.world.broker_is_there:
                self.is_speaking = True
                subscribed()
            await anyio.sleep_forever()
        finally:
            self.is_speaking = False
            self.world.notes.append(f"close {self.name}")

    async def say(self, subject: str, payload: bytes) -> bool:
        self.world.notes.append(f"{subject} by {self.name}")
        return self.is_speaking


@dataclass
class World:
    """The gateway, and the links there have been; `answers` are given one after the other, the last for ever."""

    answers: list[PostroomError | float]
    present: tuple[str, ...] = (AGENT, OTHER)
    nats_url: str | None = "nats://told"
    broker_is_there: bool = True
    notes: list[str] = field(default_factory=list)
    feeds: list[Feed] = field(default_factory=list)
    asked: list[Sequence[str]] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    keys: int = 0

    async def broker_login(self, monitor_id: str, public_key: str, agent_ids: Sequence[str]) -> BrokerLogin:
        self.asked.append(agent_ids)
        if not set(agent_ids) <= set(self.present):
            raise NotFound("agent_not_found", "there is none")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, PostroomError):
            raise answer
        opened = frozenset(subject for subject in SUBJECTS if subject.split(".")[1] in agent_ids)
        return BrokerLogin(
            jwt=f"jwt of {public_key}",
            subjects=opened,
            lives_s=answer,
            renew_after_s=answer * 2 / 3,
            nats_url=self.nats_url,
        )

    async def agent(self, ref: str) -> Any:
        if ref not in self.present:
            raise NotFound("agent_not_found", "there is none")

    def link(self) -> "Link":
        self.keys += 1
        return Link(self, f"U{self.keys}")

    async def until(self, *notes: str) -> None:
        with anyio.fail_after(DEADLINE_S):
            while not set(notes) <= set(self.notes):
                await anyio.sleep(0.01)


@dataclass
class Link:
    world: World
    public_key: str

    def feed(self, url: str, jwt: str) -> Feed:
        assert jwt == f"jwt of {self.public_key}"
        self.world.feeds.append(Feed(self.world, self.public_key, url))
        return self.world.feeds[-1]


@asynccontextmanager
async def following(
    world: World, *, nats_url: str | None = None, refused_again_s: float = 0.05, lost_s: float = 0.3
) -> AsyncIterator[RenewedPushes]:
    gateway: Any = world
    pushes = RenewedPushes(
        monitor_id="host",
        nats_url=nats_url,
        gateway=gateway,
        new_link=world.link,
        without_credentials=lambda url: Feed(world, "nobody", url),
        refused_again_s=refused_again_s,
        lost_s=lost_s,
        draw=lambda: 0.5,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            pushes.follow, SUBJECTS, lambda _: None, lambda: world.notes.append("subscribed"), lambda _: None
        )
        yield pushes
        tasks.cancel_scope.cancel()


async def test_the_next_connection_stands_before_the_one_in_use_is_closed() -> None:
    world = World(answers=[0.9, 60.0])
    async with following(world) as pushes:
        await world.until("close U1")
        assert world.notes == ["open U1", "subscribed", "open U2", "subscribed", "close U1"]
        assert await pushes.say("hb.host", b"")
        assert world.notes[-1] == "hb.host by U2"
        assert pushes.is_speaking


async def test_each_connection_has_a_key_of_its_own_and_hears_what_the_credential_opens() -> None:
    world = World(answers=[60.0], present=(AGENT,))
    async with following(world):
        await world.until("subscribed")
    assert world.asked == [[AGENT, OTHER], [AGENT]]
    assert world.subjects == SUBJECTS[:2]


async def test_while_the_gateway_is_away_the_connection_stays_until_its_credential_ends() -> None:
    away = Unavailable("gateway_unreachable", "away", retry_after_s=0)
    world = World(answers=[1.5, away])
    async with following(world) as pushes:
        await world.until("subscribed")
        with anyio.fail_after(DEADLINE_S):
            while len(world.asked) < 2:
                await anyio.sleep(0.01)
        assert pushes.is_speaking
        await world.until("close U1")
        assert not pushes.is_speaking
        world.answers = [60.0]
        await world.until("open U2")
        assert pushes.is_speaking


@pytest.mark.parametrize("refusal", [Unauthenticated("invalid_credentials", "no"), NotFound("x", "no")])
async def test_a_refusal_is_followed_by_another_try_later(refusal: PostroomError) -> None:
    world = World(answers=[refusal, refusal, 60.0])
    async with following(world):
        await world.until("subscribed")
    assert len(world.asked) == 3


async def test_a_connection_that_stays_lost_is_made_anew_with_another_credential() -> None:
    world = World(answers=[60.0])
    async with following(world) as pushes:
        await world.until("subscribed")
        world.feeds[0].is_speaking = False
        await world.until("close U1")
        assert world.notes == ["open U1", "subscribed", "open U2", "subscribed", "close U1"]
        assert pushes.is_speaking


async def test_a_broker_that_is_away_is_tried_again_ever_less_often() -> None:
    world = World(answers=[60.0], broker_is_there=False)
    async with following(world, lost_s=0.1):
        await world.until("close U3")
        world.broker_is_there = True
        await world.until("subscribed")
    assert len(world.asked) <= 5


async def test_where_no_credentials_are_given_out_the_configured_broker_is_used_as_it_is() -> None:
    world = World(answers=[NotFound("credentials_not_available", "none")])
    async with following(world, nats_url="nats://configured") as pushes:
        await world.until("subscribed")
        assert pushes.is_speaking
    assert world.notes[0] == "open nobody"


async def test_the_configured_address_comes_before_the_one_the_gateway_tells() -> None:
    world = World(answers=[60.0])
    async with following(world, nats_url="nats://configured"):
        await world.until("subscribed")
    assert [feed.url for feed in world.feeds] == ["nats://configured"]


async def test_without_any_address_it_waits_for_one() -> None:
    world = World(answers=[60.0], nats_url=None)
    async with following(world):
        with anyio.fail_after(DEADLINE_S):
            while len(world.asked) < 2:
                await anyio.sleep(0.01)
        world.nats_url = "nats://told"
        await world.until("subscribed")
