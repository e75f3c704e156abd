"""Trials of the way pushes take to an agent: an echo asked on somebody's demand, and the wait for its answer."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import anyio
from starlette.types import Receive

from contracts.clock import Clock
from contracts.errors import Unavailable
from contracts.freshness import echo_name
from gateway.echoes import Echoes
from gateway.holds import Holds
from gateway.ports import Beats

LOOK_EVERY_S: Final = 0.02
"""The answer may come to any gateway, so it is looked for where all of them note it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How it went. `round_trip_ms` is None when no answer came in time."""

    round_trip_ms: float | None

    @property
    def reached(self) -> bool:
        return self.round_trip_ms is not None


class EchoTrials:
    """Asks, waits, and says how long it took."""

    def __init__(self, *, echoes: Echoes, beats: Beats, holds: Holds, clock: Clock) -> None:
        self._echoes = echoes
        self._beats = beats
        self._holds = holds
        self._clock = clock

    async def reach(self, agent_id: str, timeout_s: float, receive: Receive) -> Trial:
        """Try it once. Raises `Unavailable` when nothing can be asked or noted, which says nothing of the agent."""
        asked_at = _to_the_millisecond(self._clock.now())
        if not await self._echoes.ask([agent_id]):
            raise Unavailable("broker_unavailable", "The echo could not be published.")
        answered = _Answered()
        async with self._holds.at_most(timeout_s, receive):
            await self._wait(agent_id, asked_at)
            answered.at = self._clock.now()
        if answered.at is None:
            return Trial(None)
        return Trial(round((answered.at - asked_at).total_seconds() * 1_000, 1))

    async def _wait(self, agent_id: str, asked_at: datetime) -> None:
        while True:
            [answered_at] = await self._beats.last_seen([echo_name(agent_id)])
            if answered_at is not None and answered_at >= asked_at:
                return
            await anyio.sleep(LOOK_EVERY_S)


@dataclass(slots=True)
class _Answered:
    """When the answer was seen; the wait may end before."""

    at: datetime | None = None


def _to_the_millisecond(at: datetime) -> datetime:
    """As finely as the store keeps instants: else an answer within the same millisecond would look older."""
    return at.replace(microsecond=at.microsecond // 1_000 * 1_000)
