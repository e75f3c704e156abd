"""How many messages of high priority were sent within the last hour: two small windows in Redis, asked in one trip."""

from typing import Final

from gateway.ports import Ration, Urgency
from infra.redis_connection import RedisConnection, load_script

TAKE: Final = load_script("high_priorities")
PER_OWNER: Final = 10
"""Per hour; the peer's limit."""
PER_PAIR: Final = 5
"""From one sender to one receiver, per hour: those beyond it go on with the usual priority."""


class RedisHighPriorities:
    """Implements `gateway.ports.HighPriorities`."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def take(self, *, owner: str, sender: str, recipient: str, member: str) -> Ration:
        key = self._connection.key
        keys = [key(f"high:{owner}"), key(f"high:{sender}:{recipient}")]
        word, wait_ms = await self._connection.run(TAKE, keys, [member, PER_OWNER, PER_PAIR])
        return Ration(Urgency(word.decode()), wait_ms / 1000)
