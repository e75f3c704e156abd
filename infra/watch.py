"""Waiting for a message or a mailbox to move, by a core subscription that lasts as long as the wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import anyio
from nats.aio.msg import Msg

from contracts.subjects import Names, pushes_of
from contracts.words import Channel
from infra.nats_connection import Broker

TICK_S: Final = 1.0


class BrokerWatch:
    """Implements `gateway.ports.Watch`. Raises `Unavailable` on entering while the broker is away."""

    def __init__(self, broker: Broker, names: Names) -> None:
        self._broker = broker
        self._names = names

    def message(self, ulid: str) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        return self._watch(self._names.moved(ulid))

    def inbox(self, agent_id: str) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        return self._watch(pushes_of(Channel.INBOX, agent_id))

    @asynccontextmanager
    async def _watch(self, subject: str) -> AsyncIterator[AsyncIterator[None]]:
        moves = _Moves()
        subscription = await self._broker.subscribe(subject, moves.note, on_gap=moves.wake)
        try:
            # The broker reads a connection in order: once the echo is back, nothing that follows is missed.
            await self._broker.echo()
            yield moves
        finally:
            with anyio.CancelScope(shield=True):
                await self._broker.unsubscribe(subscription)


class _Moves(AsyncIterator[None]):
    """One item per message heard, and one per second in which there was none."""

    def __init__(self) -> None:
        self._heard = 0
        self._arrived = asyncio.Event()

    def note(self, _: Msg) -> None:
        self.wake()

    def wake(self) -> None:
        self._heard += 1
        self._arrived.set()

    async def __anext__(self) -> None:
        if not self._heard:
            with anyio.move_on_after(TICK_S):
                await self._arrived.wait()
        self._heard = max(0, self._heard - 1)
        if not self._heard:
            self._arrived.clear()
