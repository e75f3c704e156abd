"""The books of a mailbox: sends, polls and changes on real servers, and the one check that all of it adds up.

They are balanced when single reads, counts, lists, usage and the audit of the whole ledger say the same.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import anyio
from pydantic_core import from_json
from redis.asyncio import Redis

from contracts.errors import Conflict, Unavailable
from contracts.events import History, Stored
from contracts.records import Agent, Sender, Wish
from contracts.words import INBOX_STATES, Channel, Reason, State
from gateway.lists import hand_out
from gateway.ports import Query
from router.audit import audit
from router.service import Draft, Standing
from tests.installation import MAX, Installation

PATIENCE_S: Final = 20
GRACE: Final = timedelta(seconds=PATIENCE_S)
OWNER: Final = MAX.owner
UNFINISHED: Final = tuple(sorted(INBOX_STATES))


class Books:
    """An installation, what it has accepted, and whether everything that tells of it tells the same."""

    def __init__(self, post: Installation, store_url: str) -> None:
        self.post = post
        self.store_url = store_url
        self.agents: list[Agent] = []
        self.accepted: set[str] = set()

    async def open(self) -> None:
        self.agents = [await self.post.agent(Channel.BG, Channel.INBOX, preferred_contact=Channel.INBOX) for _ in "ab"]

    async def send(self, to: int, sender: int | None, mode: Channel | None, ttl_s: int, send_s: int | None) -> str:
        draft = await self.post.draft(self.agents[to], mode)
        send_at = None if send_s is None else self.post.clock.now() + timedelta(seconds=send_s)
        wish = Wish(channel=mode, ttl_s=ttl_s, send_at=send_at)
        return await self._accept(draft, wish=wish, sender=self._sender(sender))

    async def send_under(self, key: str) -> str:
        """Once, however often it is repeated."""
        draft = await self.post.draft(self.agents[0], Channel.INBOX)
        return await self._accept(draft, wish=Wish(channel=Channel.INBOX, ttl_s=400_000), idempotency_key=key)

    async def poll(self, agent: int, limit: int) -> None:
        query = self._inbox_of(self.agents[agent], UNFINISHED, limit=limit, oldest_first=True)
        try:
            await self.post.queries.settle()
            page = await self.post.queries.page(query)
        except Unavailable as refused:
            assert refused.code == "projection_rebuilding"  # noqa: PT017 - the only acceptable refusal
            return
        for view in await hand_out(page, self.post.service, MAX):
            handed = from_json(view)
            assert handed["id"] in self.accepted
            assert handed["state"] in (State.INBOX_DELIVERED, State.INBOX_READ)

    async def read(self, name: str) -> None:
        await self._try(lambda: self.post.service.mark(name, State.INBOX_READ, MAX), name, self._has_been_read)

    async def acknowledge(self, name: str) -> None:
        await self._try(lambda: self.post.service.acknowledge(name, MAX), name, self._is_acknowledged)

    async def cancel(self, name: str) -> None:
        await self._try(lambda: self.post.service.cancel(name, MAX), name, self._is_cancelled)

    async def replay(self, name: str) -> None:
        before = await self._single(name)
        execution = str(before.view["execution_id"])
        try:
            after = await self.post.service.replay(execution, MAX)
        except Conflict as refused:
            assert refused.code == "execution_in_flight"  # noqa: PT017 - what else is in flight is refused as well
            return
        assert not before.execution.is_open
        assert after.execution.number == before.execution.number + 1

    async def empty_the_store(self) -> None:
        async with Redis.from_url(self.store_url) as redis:
            await redis.flushall()

    # --- the books --------------------------------------------------------------------------------------------------

    async def balance(self) -> None:
        """Whatever tells of these messages tells the same of them."""
        with anyio.fail_after(PATIENCE_S):
            singles = await self._settled()
            await self._audited(singles)
            while True:
                try:
                    await self._listed(singles)
                except Unavailable as refused:
                    assert refused.code == "projection_rebuilding"  # noqa: PT017 - a list is refused or whole
                    await anyio.sleep(0.02)
                else:
                    return

    async def _settled(self) -> dict[str, Standing]:
        """Every message read singly, once nothing that is due is left undone."""
        while True:
            singles = {name: await self._single(name) for name in self.accepted}
            now = self.post.clock.now()
            if not any(_is_due(each, now) for each in singles.values()):
                return singles
            await anyio.sleep(0.02)

    async def _audited(self, singles: dict[str, Standing]) -> None:
        report = audit(await self._ledger(), self.post.clock.now(), grace=GRACE)
        assert report.findings == ()
        assert report.messages == report.accepted == len(self.accepted)
        assert {**report.open, **report.ended} == _states(singles)

    async def _listed(self, singles: dict[str, Standing]) -> None:
        await self.post.queries.settle()
        counts = {state: await self.post.queries.count(Query(owner=OWNER, states=(state,))) for state in State}
        assert {state: count for state, count in counts.items() if count} == _states(singles)
        assert sum(counts.values()) == len(self.accepted)
        assert await self.post.queries.received_before(OWNER, []) == (len(self.accepted),)
        for state in State:
            assert await self._page(Query(owner=OWNER, states=(state,))) == _in(state, singles)
        for agent in self.agents:
            await self._listed_of(agent, singles)

    async def _listed_of(self, agent: Agent, singles: dict[str, Standing]) -> None:
        received = {name: each for name, each in singles.items() if each.history.message.agent_id == agent.id}
        for state in UNFINISHED:
            assert await self._page(self._inbox_of(agent, (state,))) == _in(state, received)
        sent = {name for name, each in singles.items() if each.history.message.sender.agent_id == agent.id}
        assert await self._page(Query(owner=OWNER, sender_agent_id=agent.id)) == sent

    async def _page(self, query: Query) -> set[str]:
        views = [from_json(view) for view in (await self.post.queries.page(replace(query, limit=200))).views]
        names = {view["id"] for view in views}
        assert len(names) == len(views)
        assert not query.states or {view["state"] for view in views} <= set(query.states)
        return names

    async def _ledger(self) -> list[History]:
        events: dict[str, list[Stored]] = {}
        goal, seq = await self.post.tail.last_seq(), 0
        async with aclosing(self.post.tail.follow(0)) as batches:
            while seq < goal:
                for moved in await anext(batches):
                    events.setdefault(moved.ulid, []).append(moved.stored)
                    seq = moved.stored.seq
        return [History(ulid=ulid, events=tuple(each)) for ulid, each in events.items()]

    # --- the steps --------------------------------------------------------------------------------------------------

    async def _accept(self, draft: Draft, **fields: Any) -> str:
        standing = await self.post.service.accept(replace(draft, **fields))
        name = standing.history.message.id
        assert standing.replayed == (name in self.accepted)
        self.accepted.add(name)
        return name

    async def _single(self, name: str) -> Standing:
        return await self.post.service.find_message(name, MAX)

    async def _try(
        self, change: Callable[[], Awaitable[Standing]], name: str, is_done: Callable[[Standing], bool]
    ) -> None:
        """A change is made, or refused because the state is another one; a refusal leaves it undone."""
        try:
            assert is_done(await change())
        except Conflict as refused:
            assert refused.code in {"invalid_state_transition", "not_cancellable"}  # noqa: PT017 - both are lawful
            assert not is_done(await self._single(name))

    def _sender(self, sender: int | None) -> Sender:
        agent_id = None if sender is None else self.agents[sender].id
        return Sender(owner=OWNER, key_id=MAX.key_id, agent_id=agent_id)

    @staticmethod
    def _inbox_of(agent: Agent, states: tuple[State, ...], **more: Any) -> Query:
        return Query(owner=OWNER, agent_id=agent.id, states=states, channel=Channel.INBOX, **more)

    @staticmethod
    def _has_been_read(standing: Standing) -> bool:
        return standing.execution.state is State.INBOX_READ

    @staticmethod
    def _is_acknowledged(standing: Standing) -> bool:
        return standing.execution.reason is Reason.ACKNOWLEDGED

    @staticmethod
    def _is_cancelled(standing: Standing) -> bool:
        return standing.execution.state is State.CANCELLED


def _is_due(standing: Standing, now: datetime) -> bool:
    execution = standing.execution
    return execution.is_open and execution.due_at is not None and execution.due_at <= now


def _states(singles: dict[str, Standing]) -> Counter[State]:
    return Counter(each.execution.state for each in singles.values())


def _in(state: State, singles: dict[str, Standing]) -> set[str]:
    return {name for name, each in singles.items() if each.execution.state is state}
