"""When each agent's presence has to be looked at next, in Redis: who is due, what is watched of it, who looks at it.

The scripts put off by themselves whoever stands as it did, so that of a million healthy sessions none costs a look
outside of Redis. The layout is in `infra/lua/presence_watched.lua`. Losing it costs one reading of the directory.
"""

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from contracts.clock import Clock
from contracts.freshness import DOOR_NAMES, GONE_FOR
from infra.redis_connection import Argument, RedisConnection, Script, load_script
from router.presence_ports import Look, PresenceChange, PresencePlace, TakenLooks, WatchedSession

BEGIN: Final = load_script("presence_begin")
NOTE: Final = load_script("presence_watched", "presence_note")
TAKE: Final = load_script("presence_watched", "presence_take")
SETTLE: Final = load_script("presence_watched", "presence_settle")
GIVEN_FOR: Final = timedelta(seconds=10)
"""How long a look is one router's: several times what a slow one takes. A router that died loses nothing."""
EPOCH: Final = datetime.fromtimestamp(0, UTC)
MILLISECOND: Final = timedelta(milliseconds=1)


class RedisPresence:
    """Implements `router.ports.PresenceDue`."""

    def __init__(
        self,
        connection: RedisConnection,
        clock: Clock,
        *,
        given_for: timedelta = GIVEN_FOR,
        new_era: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._given_for = given_for
        self._new_era = new_era

    async def begin(self, last_seq: int) -> PresencePlace:
        era, seq = await self._run(BEGIN, [self._new_era(), last_seq])
        return PresencePlace(era=era.decode(), seq=int(seq))

    async def note(self, place: PresencePlace, changes: Sequence[PresenceChange]) -> bool:
        words: list[Argument] = [place.era, place.seq]
        for each in changes:
            words += [each.agent_id, each.seq, int(each.is_of_sessions)]
        return bool(await self._run(NOTE, words))

    async def look_at(self, agent_ids: Sequence[str]) -> None:
        if agent_ids:
            key = self._connection.key("presence:due")
            await self._connection.command("ZADD", key, *(word for each in agent_ids for word in (0, each)))

    async def take(self, limit: int) -> TakenLooks:
        backlog, is_more, ticket, *agents = await self._run(
            TAKE, [*self._marks(), self._given_for // MILLISECOND, limit]
        )
        looks = tuple(Look(agent_id=agent.decode(), ticket=ticket.decode()) for agent in agents)
        return TakenLooks(looks=looks, is_more=bool(is_more), backlog=int(backlog))

    async def settle(self, look: Look, seq: int, watched: Sequence[WatchedSession]) -> bool:
        words = " ".join([str(seq), *(_words(each) for each in watched)]) if watched else ""
        return bool(await self._run(SETTLE, [*self._marks(), look.agent_id, look.ticket, words]))

    async def _run(self, script: Script, words: Sequence[Argument]) -> Any:
        return await self._connection.run(script, [], [self._connection.prefix, *words])

    def _marks(self) -> list[Argument]:
        """By what silence is counted."""
        now = (self._clock.now() - EPOCH) // MILLISECOND
        return [now, GONE_FOR // MILLISECOND, len(DOOR_NAMES), *DOOR_NAMES]


def _words(each: WatchedSession) -> str:
    attached_ms = (each.attached_at - EPOCH) // MILLISECOND
    overdue_ms, terminal_ms = each.overdue // MILLISECOND, each.terminal // MILLISECOND
    return f"{each.id} {attached_ms} {overdue_ms} {terminal_ms} {int(each.is_overdue)}"
