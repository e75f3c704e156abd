"""Waiting for a message or a mailbox to move, by a core subscription that lasts as long as the wait."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import anyio
from nats.aio.msg import Msg

from contracts.subjects import Names, agent_of_push, pushes_of
from contracts.words import Channel
from infra.nats_connection import Broker

TICK_S: Final = 1.0
BACKGROUND_TICK_S: Final = 2.0


class BrokerWatch:
    """Implements `gateway.ports.Watch`. Raises `Unavailable` on entering while the broker is away."""

    def __init__(self, broker: Broker, names: Names) -> None:
        self._broker = broker
        self._names = names

    def message(self, ulid: str) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        return self._watch(self._names.moved(ulid))

    def inbox(self, agent_id: str) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        return self._watch(pushes_of(Channel.INBOX, agent_id))

    def background(self, agent_ids: Collection[str] | None) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        one = next(iter(agent_ids)) if agent_ids and len(agent_ids) == 1 else None
        subject = pushes_of(Channel.BG, one or "*")
        wanted = None if agent_ids is None else frozenset(agent_ids)
        return self._watch(
            subject, _Moves(BACKGROUND_TICK_S, lambda pushed: wanted is None or agent_of_push(pushed) in wanted)
        )

    @asynccontextmanager
    async def _watch(self, subject: str, watched: "_Moves | None" = None) -> AsyncIterator[AsyncIterator[None]]:
        moves = watched or _Moves()
        subscription = await self._broker.subscribe(subject, moves.note, on_gap=moves.wake)
        try:
            # The broker reads a connection in order: once the echo is back, nothing that follows is missed.
            await self._broker.echo()
            yield moves
        finally:
            with anyio.CancelScope(shield=True):
                await self._broker.unsubscribe(subscription)


class _Moves(AsyncIterator[None]):
    """One item for all that was heard since the last one on a subject that counts, or for a tick in which nothing was.

    Who iterates looks at what there is, which takes in all of it.
    """

    def __init__(self, tick_s: float = TICK_S, counts: Callable[[str], bool] = lambda _: True) -> None:
        self._tick_s = tick_s
        self._counts = counts
        self._arrived = asyncio.Event()

    def note(self, message: Msg) -> None:
        if self._counts(message.subject):
            self.wake()

    def wake(self) -> None:
        self._arrived.set()

    async def __anext__(self) -> None:
        with anyio.move_on_after(self._tick_s):
            await self._arrived.wait()
        self._arrived.clear()
