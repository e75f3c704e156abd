"""Choosing a recipient: what the choice has to know of the candidates is asked in a few questions, for all at once."""

from collections.abc import Mapping, Sequence
from typing import Final

import anyio

from contracts.records import Agent, LiveSession, Reachability, Wish
from router.decision import decide
from router.desk import Desk
from router.selection import Candidate, ranked, sampled
from router.sessions import presence

LANES: Final = 8
"""How many of the candidates' records are read at the same time, where memory does not have them."""


class Selecting(Desk):
    """The routers' part of a selection; who fits is found by the gateway."""

    async def choose(self, wish: Wish, matching: Sequence[Agent], *, ulid: str) -> tuple[Candidate, ...]:
        """The agents, the best first for the message with this ulid; of very many a sample.

        An agent whose own decision would refuse the message, or end it at once, cannot be reached.
        """
        asked = sampled(matching, ulid)
        sessions = await self._sessions_of(asked)
        reach, signs = await self._freshness.reachabilities(sessions)
        counts = await self._workloads.open_at(asked) if self._workloads else None
        candidates = [
            Candidate(
                agent=agent,
                presence=presence(agent, sessions[agent.id], signs) if signs else None,
                open_executions=counts[place] if counts else None,
                is_reachable=self._is_reachable(wish, agent, reach[agent.id]),
            )
            for place, agent in enumerate(asked)
        ]
        return ranked(candidates, ulid)

    def _is_reachable(self, wish: Wish, agent: Agent, reach: Reachability) -> bool:
        return decide(wish, self._asked(agent, reach)).ending is None

    async def _sessions_of(self, agents: Sequence[Agent]) -> Mapping[str, Sequence[LiveSession]]:
        found: dict[str, Sequence[LiveSession]] = {}

        async def read(lane: Sequence[Agent]) -> None:
            for agent in lane:
                found[agent.id] = await self._directory.attached(agent.id)

        async with anyio.create_task_group() as group:
            for first in range(min(LANES, len(agents))):
                group.start_soon(read, agents[first::LANES])
        return found
