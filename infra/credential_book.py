"""Monitors' credentials in the directory, as the router's watch uses them, and the news of what changes there."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
from nats.aio.msg import Msg

from contracts.directory import account_key, agent_key, api_key_key
from contracts.errors import Stale, Unavailable
from contracts.monitors import Monitor, Revocations, monitor_key, revocations_key
from contracts.records import Agent, ApiKey, ServiceAccount
from contracts.subjects import Names
from gateway.ports import DirectoryStore, Write
from infra.nats_connection import Broker

ROUNDS: Final = 10
BACKLOG: Final = 10_000


class DirectoryCredentials:
    """Implements `router.ports.CredentialBook`."""

    def __init__(self, store: DirectoryStore) -> None:
        self._store = store

    async def monitors(self) -> Sequence[Monitor]:
        return await self._store.records(monitor_key("*"), Monitor)

    async def monitor(self, monitor_id: str) -> Monitor | None:
        found = await self._store.get(monitor_key(monitor_id), Monitor, fresh=True)
        return found.record if found else None

    async def api_key(self, key_id: str, *, fresh: bool) -> ApiKey | None:
        found = await self._store.get(api_key_key(key_id), ApiKey, fresh=fresh)
        return found.record if found else None

    async def service_account(self, account_id: str, *, fresh: bool) -> ServiceAccount | None:
        found = await self._store.get(account_key(account_id), ServiceAccount, fresh=fresh)
        return found.record if found else None

    async def agent(self, agent_id: str, *, fresh: bool) -> Agent | None:
        found = await self._store.get(agent_key(agent_id), Agent, fresh=fresh)
        return found.record if found else None

    async def revocations(self, account: str) -> Revocations:
        found = await self._store.get(revocations_key(account), Revocations, fresh=True)
        return found.record if found else Revocations()

    async def revise(self, account: str, change: Callable[[Revocations], Revocations]) -> Revocations:
        for _ in range(ROUNDS):
            found = await self._store.get(revocations_key(account), Revocations, fresh=True)
            before = found.record if found else Revocations()
            after = change(before)
            try:
                if after != before:
                    write = Write(key=revocations_key(account), record=after, expected_seq=found.seq if found else 0)
                    await self._store.transact([write])
            except Stale:
                continue
            return after
        raise Unavailable("contended", "Too many routers change the revocations at once.")


@asynccontextmanager
async def directory_news(broker: Broker, names: Names) -> AsyncIterator[AsyncIterator[str]]:
    """Inside, iterate over the keys that change; "" says that some may have been missed."""
    send, receive = anyio.create_memory_object_stream[str](BACKLOG)
    is_behind = False

    def tell(key: str) -> None:
        nonlocal is_behind
        try:
            send.send_nowait(key)
        except anyio.WouldBlock:
            is_behind = True

    async def told() -> AsyncIterator[str]:
        nonlocal is_behind
        async for key in receive:
            yield key
            if is_behind:
                is_behind = False
                yield ""

    def hear(message: Msg) -> None:
        tell(message.data.decode("utf-8", "replace"))

    with send, receive:
        subscription = await broker.subscribe(names.directory_changed, hear, on_gap=lambda: tell(""))
        try:
            yield told()
        finally:
            await broker.unsubscribe(subscription)
