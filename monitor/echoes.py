"""Echoes: the questions along the way of pushes whether pushes arrive, answered over HTTPS.

Only the newest question of an agent is worth an answer. One that cannot be given is dropped: the gateway asks again
with the next beat.
"""

from collections.abc import Iterable
from typing import Final

import anyio
import structlog

from contracts.errors import PostroomError
from contracts.records import Echo
from monitor.bell import Bell
from monitor.ports import Gateway

LOOK_S: Final = 60.0

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
            due, self._due = self._due, {}
            async with anyio.create_task_group() as tasks:
                for agent_id, echo_id in due.items():
                    tasks.start_soon(self._tell, agent_id, echo_id)

    async def _tell(self, agent_id: str, echo_id: str | None) -> None:
        try:
            await self._gateway.echo(agent_id, echo_id)
        except PostroomError as error:
            log.warning("echo_not_told", agent_id=agent_id, code=error.code)
