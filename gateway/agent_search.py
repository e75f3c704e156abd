"""Searching one's agents: what is asked of them, and the pages of those that fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from contracts.clock import Clock
from contracts.records import Agent
from contracts.words import AgentStatus, Channel
from gateway.agents import Agents
from gateway.presence import presence_of
from gateway.roster import Rosters, description_of
from router.selectors import EVERYBODY, Selector

SCAN_LIMIT: Final = 500
"""How many agents one request looks at; a page that ends there has a cursor to go on with."""
_DERIVED: Final = frozenset({"online", "away", "offline"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSearch:
    """Every word that is given has to fit. `q` is looked for in everything an agent says of itself, in any case."""

    capability: Channel | None = None
    specialization: str | None = None
    tool: str | None = None
    q: str | None = None
    status: str | None = None
    selector: Selector = EVERYBODY

    @property
    def is_empty(self) -> bool:
        return self == AgentSearch()

    @property
    def asks_presence(self) -> bool:
        return self.status in _DERIVED

    @property
    def scope(self) -> str:
        """What a cursor of this search is bound to."""
        words = (self.capability and self.capability.value, self.specialization, self.tool, self.q, self.status)
        return repr((*words, self.selector.terms) if self.selector.terms else words)

    def fits(self, agent: Agent) -> bool:
        """Say whether the agent fits, as far as its record tells; a derived status is asked of `gateway.presence`."""
        profile = agent.profile
        return (
            (self.capability is None or self.capability in agent.delivery_capabilities)
            and _within(self.specialization, profile.specialization or "")
            and (self.tool is None or self.tool.casefold() in {tool.casefold() for tool in profile.tools})
            and (self.status is None or self.asks_presence or AgentStatus(self.status) is agent.status)
            and _within(self.q, _everything(agent))
            and self.selector.fits(agent)
        )


class AgentSearches:
    """Looks at a bounded number of agents for each page."""

    def __init__(self, *, agents: Agents, rosters: Rosters, clock: Clock) -> None:
        self._agents = agents
        self._rosters = rosters
        self._clock = clock

    async def page(
        self,
        owner: str,
        search: AgentSearch,
        *,
        after: str,
        limit: int,
        with_deleted: bool = False,
        among: Sequence[Agent] | None = None,
    ) -> tuple[Sequence[Agent], str | None]:
        """The agents of `owner` that fit, by slug, and the slug to go on after; there may be none and yet more.

        The deleted ones are behind all others, on the last page. `among`: of these alone, and no deleted ones.
        """
        n_looked_at = limit if search.is_empty else SCAN_LIMIT
        agents, more = await self._agents.of_owner(owner, after=after, limit=n_looked_at, among=among)
        fitting: Sequence[Agent] = [agent for agent in agents if search.fits(agent)]
        if search.asks_presence:
            fitting = await self._in_status(fitting, search.status)
        last = fitting[limit - 1].slug if len(fitting) > limit else more
        if with_deleted and last is None and among is None:
            fitting = [*fitting, *await self._deleted(owner, search)]
        return fitting[:limit], last

    async def total(
        self,
        owner: str,
        search: AgentSearch,
        found: int,
        *,
        is_whole: bool,
        with_deleted: bool = False,
        among: Sequence[Agent] | None = None,
    ) -> int | None:
        """How many fit; None where only looking at each of them would tell. `found`: on pages that leave out none."""
        if not search.is_empty:
            return found if is_whole else None
        if among is not None:
            return len(among)
        return await self._agents.count(owner) + (len(await self._deleted(owner, search)) if with_deleted else 0)

    async def _deleted(self, owner: str, search: AgentSearch) -> Sequence[Agent]:
        """Nobody has heard of a deleted agent lately, so none is in any derived status."""
        if search.asks_presence:
            return ()
        return [agent for agent in await self._agents.deleted(owner) if search.fits(agent)]

    async def _in_status(self, agents: Sequence[Agent], status: str | None) -> Sequence[Agent]:
        signs, now = await self._rosters.signs_of(agents), self._clock.now()
        return [agent for agent in agents if presence_of(agent, signs[agent.id], now).status == status]


def _within(wanted: str | None, text: str) -> bool:
    return wanted is None or wanted.casefold() in text.casefold()


def _everything(agent: Agent) -> str:
    profile = agent.profile
    said = (agent.slug, profile.display_name, profile.specialization, description_of(agent), *profile.tools)
    return "\n".join(text for text in said if text)
