"""Who fits a selector: the active agents of a project that the caller may send to, and the router's order of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from contracts.errors import Invalid, NotFound
from contracts.records import Agent, Principal, Wish
from contracts.words import AgentStatus
from gateway.auth import authorize, reaches
from gateway.grants import Grants, is_open
from gateway.namespaces import Namespaces
from gateway.problems import agent_not_found
from gateway.schemas_selection import AgentSelector
from router.selection import Ask, Ranking
from router.selectors import selector_of
from router.service import Service

MAX_RECIPIENTS: Final = 100
PICK_ALL: Final = "all"


class Candidates:
    """Finds and ranks. What is somebody else's and not open to the caller is not there."""

    def __init__(self, *, namespaces: Namespaces, grants: Grants, service: Service) -> None:
        self._namespaces = namespaces
        self._grants = grants
        self._service = service

    async def ranking(self, wish: Wish, ask: Ask, principal: Principal, *, ulid: str) -> Ranking:
        """Those that fit, in the order of the choice for the message with this ulid.

        Raises `NotFound` (`no_agent_fits`), with one of them to be picked also where none can be reached; `Invalid`
        (`too_many_recipients`).
        """
        addressable, is_whole = await self._addressable(ask.project, principal)
        is_near = reaches(principal, ask.project)
        selector = selector_of(ask.where)
        matching = [agent for agent in addressable if selector.fits(agent if is_near else _as_others_see(agent))]
        if ask.pick == PICK_ALL and len(matching) > MAX_RECIPIENTS:
            raise _too_many(len(matching))
        candidates = await self._service.choose(wish, matching, ulid=ulid) if matching else ()
        if not is_near:
            # How busy somebody else's agents are decides the order, and is nobody else's to know.
            candidates = tuple(replace(each, open_executions=None) for each in candidates)
        ranking = Ranking(candidates=candidates, considered=len(addressable), matched=len(matching), is_whole=is_whole)
        if not (ranking.candidates if ask.pick == PICK_ALL else ranking.reachable):
            raise _nobody(ranking, ask, principal)
        return ranking

    async def refuse_closed(self, agent: Agent, principal: Principal) -> None:
        """Raise `NotFound` (`agent_not_found`) for an agent, chosen earlier, to which the caller may send no longer."""
        if reaches(principal, agent.owner):
            is_there = agent.deleted_at is None and authorize(principal, "agent.address", agent.owner, agent)
        else:
            is_there = is_open(agent) and await self._grants.admits(agent.owner, principal)
        if not is_there:
            raise agent_not_found()

    async def _addressable(self, owner: str, principal: Principal) -> tuple[Sequence[Agent], bool]:
        """The active agents of `owner` that the caller may send to, and whether all of them were looked at."""
        is_near = reaches(principal, owner)
        if not is_near and not await self._grants.admits(owner, principal):
            return (), True
        agents, is_whole = await self._namespaces.agents_of(owner)
        if is_near:
            return [agent for agent in agents if _may_address(principal, agent)], is_whole
        return [agent for agent in agents if is_open(agent)], is_whole


def ask_of(selector: AgentSelector, principal: Principal) -> Ask:
    """What a body asks, in the router's words; the caller's own project where it names none."""
    return Ask(project=selector.project or principal.owner, where=selector.where, pick=selector.pick)


def no_agent_fits(**facts: Any) -> NotFound:
    """The one answer where nobody is chosen. Facts are for those whose agents they are about."""
    return NotFound("no_agent_fits", "No agent fits.", **facts)


def _may_address(principal: Principal, agent: Agent) -> bool:
    is_there = agent.status is AgentStatus.ACTIVE and agent.cue_id is None
    return is_there and authorize(principal, "agent.address", agent.owner, agent)


def _as_others_see(agent: Agent) -> Agent:
    """What a selector of another owner is about: not who works behind an agent."""
    return replace(agent, service_account_id=None)


def _nobody(ranking: Ranking, ask: Ask, principal: Principal) -> NotFound:
    """Somebody else's project says nothing of itself, whether there is one or not."""
    if not reaches(principal, ask.project):
        return no_agent_fits()
    return no_agent_fits(considered=ranking.considered, matched=ranking.matched, reachable=len(ranking.reachable))


def _too_many(matched: int) -> Invalid:
    message = f"A message goes to {MAX_RECIPIENTS} agents at most; more fit."
    return Invalid("too_many_recipients", message, field="to", matched=matched, limit=MAX_RECIPIENTS)
