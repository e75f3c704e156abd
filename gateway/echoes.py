"""Echoes: whether pushes reach an agent's sessions, asked along the very way pushes take and answered over HTTPS.

    attach, beat or wish ─▶ noted as asked ─▶ published like a push ─▶ heard ─▶ POST /v1/hosts/echo ─▶ noted as answered

The questions ride on the heartbeats of sessions that echo: no loop of our own, nobody to be looked for. Nothing waits
for an answer; the router's gate `push_path` reads what is noted.
"""

from datetime import datetime, timedelta
from typing import Final

import structlog

from contracts.clock import Clock, Ids
from contracts.errors import Unavailable
from contracts.freshness import asked_name, echo_name
from contracts.ids import echo_asked_at, echo_id
from contracts.records import Echo
from gateway.ports import Beats, EchoPushes
from router.gates import ECHO_BOUND_S

ASK_EVERY: Final = timedelta(seconds=20)
"""Below the 30 s of a monitor's beat, so that each beat of a single session asks."""
COUNTS_FOR: Final = timedelta(seconds=ECHO_BOUND_S)
RANDOM_BYTES: Final = 10

log = structlog.get_logger()


class Echoes:
    """Asks, and notes the answers."""

    def __init__(self, *, beats: Beats, pushes: EchoPushes, clock: Clock, ids: Ids) -> None:
        self._beats = beats
        self._pushes = pushes
        self._clock = clock
        self._ids = ids

    async def keep_up(self, agent_id: str) -> None:
        """Ask when the last question is a while ago, or unanswered: what it went by may work again.

        Never raises: whoever beats has nothing to do with a question that could not be asked; the next beat asks it.
        """
        try:
            now = self._clock.now()
            asked_at, answered_at = await self._beats.last_seen([asked_name(agent_id), echo_name(agent_id)])
            if is_unanswered(asked_at, answered_at):
                await self._publish(agent_id, now)
            elif asked_at is None or now - asked_at >= ASK_EVERY:
                await self.ask(agent_id)
        except Unavailable as error:
            log.warning("echo_not_asked", agent_id=agent_id, code=error.code)

    async def ask(self, agent_id: str) -> bool:
        """Ask now, and count the time from now on. False when it could not be published; raises `Unavailable`."""
        now = self._clock.now()
        # Noted first: the answer may be faster than the note.
        await self._beats.beat({asked_name(agent_id): now})
        is_asked = await self._publish(agent_id, now)
        if not is_asked:
            # Nobody can answer what was never said.
            await self._beats.forget([asked_name(agent_id)])
        return is_asked

    async def answer(self, agent_id: str, text: str) -> bool:
        """Note that an echo arrived; False for one so late that it says nothing good of the way."""
        now, asked_at = self._clock.now(), echo_asked_at(text)
        if asked_at is None or abs(now - asked_at) > COUNTS_FOR:
            return False
        # Never before its question, whichever gateway's clock that was read from.
        await self._beats.beat({echo_name(agent_id): max(now, asked_at)})
        return True

    async def _publish(self, agent_id: str, now: datetime) -> bool:
        question = Echo(agent_id=agent_id, echo_id=echo_id(now, self._ids.secret(RANDOM_BYTES)))
        return await self._pushes.ask(question)


def is_unanswered(asked_at: datetime | None, answered_at: datetime | None) -> bool:
    """Say whether the last question still waits for its answer."""
    return asked_at is not None and (answered_at is None or answered_at < asked_at)
