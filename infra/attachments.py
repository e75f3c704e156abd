"""The news that a live session attached, as the routers hear it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
from nats.aio.msg import Msg

from contracts.subjects import Names
from infra.nats_connection import Broker

BACKLOG: Final = 1_000
"""More news than this at once is dropped: messages that wait are looked at again anyway."""


@asynccontextmanager
async def attachments(broker: Broker, names: Names) -> AsyncIterator[AsyncIterator[str]]:
    """Inside, iterate over the ids of agents to which a session has just attached."""
    send, receive = anyio.create_memory_object_stream[str](BACKLOG)

    def hear(message: Msg) -> None:
        try:
            send.send_nowait(message.data.decode())
        except anyio.WouldBlock:
            return

    with send, receive:
        subscription = await broker.subscribe(names.session_attached, hear)
        try:
            yield receive
        finally:
            await broker.unsubscribe(subscription)
