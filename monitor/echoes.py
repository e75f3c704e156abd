"""Echoes: the questions along the way of pushes whether pushes arrive, answered over HTTPS, many in one call.

    heard ─▶ collected for a moment ─▶ one call ─▶ a pause, in which the next ones are collected

Only the newest question of an agent is worth an answer. One that cannot be given is dropped: the gateway asks again
with the next beat.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

import anyio
import structlog

from contracts.errors import PostroomError
from contracts.records import Echo
from monitor.bell import Bell
from monitor.ports import ECHOES_PER_CALL, Gateway

LOOK_S: Final = 60.0
COLLECTED_FOR_S: Final = 0.02
"""A beat's questions for all agents of a host arrive together."""
PAUSE_S: Final = 1.0
"""Far below the time an echo may take, and one call a second at most, however the questions are scattered."""

log = structlog.get_logger()


class Echoes:
    """What is to be said to the gateway, by agent: the echo that arrived, or None for the wish to be asked one."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._bell = Bell()
        self._due: dict[str, str | None] = {}

    def hear(self, echo: Echo) -> None:
        self._due[echo.agent_id] = echo.echo_id
        self._bell.ring()

    def ask_for(self, agent_ids: Iterable[str]) -> None:
        """Let the gateway try the way of pushes now: it was interrupted, and questions may have been lost."""
        for agent_id in agent_ids:
            self._due.setdefault(agent_id, None)
        self._bell.ring()

    async def run(self) -> None:
        """Tell the gateway until cancelled."""
        while True:
            await self._bell.wait(LOOK_S)
            await anyio.sleep(COLLECTED_FOR_S)
            while self._due:
                await self._tell(self._take())
            await anyio.sleep(PAUSE_S)

    def _take(self) -> Mapping[str, str | None]:
        part = dict(islice(self._due.items(), ECHOES_PER_CALL))
        for agent_id in part:
            del self._due[agent_id]
        return part

    async def _tell(self, due: Mapping[str, str | None]) -> None:
        try:
            await self._gateway.echo(due)
        except PostroomError as error:
            log.warning("echoes_not_told", agents=len(due), code=error.code)
