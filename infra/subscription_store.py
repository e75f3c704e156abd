"""Subscriptions in the directory, as the routers' dispatchers read and mark them."""

from collections.abc import Sequence

from contracts.errors import Stale
from contracts.subscriptions import Subscription, SubscriptionMark, Subscriptions, mark_key, subscriptions_key
from gateway.ports import Write
from infra.directory_store import BucketDirectory
from router.store_ports import MarkHeld


class DirectorySubscriptions:
    """Implements `router.ports.SubscriptionStore`."""

    def __init__(self, store: BucketDirectory) -> None:
        self._store = store

    async def agents(self) -> Sequence[str]:
        prefix = subscriptions_key("")
        return [f"agent_{key.removeprefix(prefix)}" for key in await self._store.keys(f"{prefix}*")]

    async def of_agent(self, agent_id: str) -> Subscriptions:
        found = await self._store.get(subscriptions_key(agent_id), Subscriptions)
        return found.record if found else Subscriptions()

    async def subscription(self, wanted: Subscription) -> Subscription | None:
        items = (await self.of_agent(wanted.agent_id)).items
        return next((each for each in items if each.id == wanted.id), None)

    async def mark(self, subscription_id: str) -> MarkHeld:
        found = await self._store.get(mark_key(subscription_id), SubscriptionMark, fresh=True)
        return MarkHeld(mark=found.record, seq=found.seq) if found else MarkHeld(mark=SubscriptionMark(), seq=0)

    async def set_mark(self, subscription_id: str, mark: SubscriptionMark, *, expected_seq: int) -> MarkHeld:
        key = mark_key(subscription_id)
        await self._store.transact([Write(key=key, record=mark, expected_seq=expected_seq)])
        found = await self._store.get(key, SubscriptionMark, fresh=True)
        if found is None or found.record != mark:
            raise Stale(key, expected_seq)
        return MarkHeld(mark=mark, seq=found.seq)
