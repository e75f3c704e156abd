"""Which sessions a monitor beats for, in Redis: what it takes to note that all of them are gone at once.

    beats                 sorted set: session id ▶ epoch milliseconds of its last beat, negative while it is known to be
                          gone (`infra.beats`)
    monitor:<monitor id>  hash: part of the monitor's messages ▶ the ids of the sessions in it, for as long as it beats

A session's beat is renewed and never made: attaching makes it, detaching takes it away, and a beat that arrives later
brings nothing back.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from redis.asyncio import Redis

from infra.beats import BEATS_KEY
from infra.redis_connection import RedisConnection, load_script
from router.ports import HeldSessions

KEY: Final = "monitor:"
KEPT_FOR_S: Final = 300
"""Longer than any monitor's pause between two beats, and short enough that a host that is no more costs nothing."""
NAMES_PER_COMMAND: Final = 1_000
SESSIONS_GONE: Final = load_script("sessions_gone")
SEPARATOR: Final = " "


class MonitorSessions:
    """Implements `router.ports.SessionNotes`: beats in few commands, and the end of all sessions of one monitor."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._beats = connection.key(BEATS_KEY)

    async def note(self, seen: Mapping[str, int], held: Iterable[HeldSessions]) -> None:
        """Note these beats, in epoch milliseconds, and who holds what. Raises `Unavailable`."""

        async def write(client: Redis) -> None:
            async with client.pipeline(transaction=False) as pipeline:
                for some in _score_and_member(seen):
                    pipeline.execute_command("ZADD", self._beats, "XX", *some)
                for each in held:
                    key = self._key(each.monitor_id)
                    pipeline.hset(key, str(each.part), SEPARATOR.join(each.session_ids))
                    pipeline.expire(key, KEPT_FOR_S)
                await pipeline.execute()

        await self._connection.ask(write)

    async def end(self, monitor_id: str) -> Sequence[str]:
        """Note that the sessions of a monitor are gone, until they beat again; their ids. Raises `Unavailable`."""
        parts = await self._connection.command("HVALS", self._key(monitor_id))
        session_ids = [session_id for part in parts for session_id in part.decode().split(SEPARATOR)]
        for start in range(0, len(session_ids), NAMES_PER_COMMAND):
            await self._connection.run(SESSIONS_GONE, [self._beats], session_ids[start : start + NAMES_PER_COMMAND])
        return session_ids

    def _key(self, monitor_id: str) -> str:
        return self._connection.key(f"{KEY}{monitor_id}")


def _score_and_member(seen: Mapping[str, int]) -> Iterable[list[str | int]]:
    """The arguments of each `ZADD`, bounded so that Redis serves others in between."""
    items = list(seen.items())
    for start in range(0, len(items), NAMES_PER_COMMAND):
        yield [word for session_id, at_ms in items[start : start + NAMES_PER_COMMAND] for word in (at_ms, session_id)]
