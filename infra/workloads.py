"""How busy agents are, counted in the projection's indexes: all that one choice looks at in a single script call."""

from collections.abc import Sequence
from typing import Final

import structlog

from contracts.errors import Unavailable
from contracts.records import Agent
from contracts.words import OPEN_STATES, State
from infra.projection import EPOCH_KEY
from infra.redis_connection import Argument, RedisConnection, load_script

OPEN: Final = load_script("projection_layout", "projection_open")
BUSY_STATES: Final = sorted(OPEN_STATES - {State.SCHEDULED})
"""What is put off until later keeps nobody busy now."""
log = structlog.get_logger(__name__)


class RedisWorkloads:
    """The router's `Workloads`."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def open_at(self, agents: Sequence[Agent]) -> tuple[int, ...] | None:
        pairs = [word for agent in agents for word in (agent.owner, agent.id)]
        args: list[Argument] = [self._connection.prefix, ",".join(BUSY_STATES), *pairs]
        try:
            status, *counts = await self._connection.run(OPEN, [self._connection.key(EPOCH_KEY)], args)
        except Unavailable as error:
            log.warning("workloads_unknown", code=error.code)
            return None
        return tuple(counts) if status == b"ok" else None
