"""The agents of a project, narrowed by what they are, a page at a time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from contracts.errors import Invalid
from contracts.ids import ACCOUNT_ID
from contracts.records import Agent, Principal
from gateway.agents import Agents
from gateway.directory import Directory
from router.selectors import MAX_TERMS, PATH_BEGINS, Selector, path_of, selector_of_texts

SCAN_LIMIT: Final = 1_000
"""How many agents one request looks at for what no index knows."""


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What is asked of the agents. For those of a service account there is an index."""

    selector: Selector
    account_id: str | None = None

    @property
    def scope(self) -> str:
        """What a cursor of this list is bound to."""
        return repr((self.selector, self.account_id))


def narrowed_by(
    query: Iterable[tuple[str, str]], *, status: str | None, kind: str | None, account_id: str | None
) -> Narrowed:
    """What a query asks. Its `capabilities.<path>` are read as selectors read texts.

    Raises `Invalid` (`invalid_filter`) for a path that leads nowhere, or too many of them.
    """
    paths = [(key, text) for key, text in query if key.startswith(PATH_BEGINS)]
    if len(paths) > MAX_TERMS or any(path_of(key) is None for key, _ in paths):
        message = f"Ask for up to {MAX_TERMS} of capabilities.<path>=<value>."
        raise Invalid("invalid_filter", message, field="capabilities")
    named = [(key, text) for key, text in (("status", status), ("kind", kind)) if text is not None]
    return Narrowed(selector_of_texts([*named, *paths]), account_id)


class ProjectAgents:
    """Looks at a bounded number of agents for each page."""

    def __init__(self, *, agents: Agents, directory: Directory) -> None:
        self._agents = agents
        self._directory = directory

    async def page(
        self, owner: str, wanted: Narrowed, caller: Principal, *, after: str, limit: int
    ) -> tuple[Sequence[Agent], str | None]:
        """The agents that fit and the caller may see, by name, and the name to go on behind.

        There may be none on a page and yet more behind it.
        """
        found, more = await self._looked_at(owner, wanted, caller, after=after, limit=limit)
        fitting = [agent for agent in found if wanted.selector.fits(agent)]
        last = fitting[limit - 1].slug if len(fitting) > limit else more
        return fitting[:limit], last

    async def _looked_at(
        self, owner: str, wanted: Narrowed, caller: Principal, *, after: str, limit: int
    ) -> tuple[Sequence[Agent], str | None]:
        own = await self._directory.confines(caller, "agent.list")
        if wanted.account_id is not None and own is None:
            own = await self._agents.backed_by(wanted.account_id) if ACCOUNT_ID.match(wanted.account_id) else []
        if own is None:
            many = SCAN_LIMIT if wanted.selector.terms else limit
            return await self._agents.of_owner(owner, after=after, limit=many)
        return [agent for agent in own if agent.slug > after and _is_among(agent, owner, wanted.account_id)], None


def _is_among(agent: Agent, owner: str, account_id: str | None) -> bool:
    return agent.owner == owner and account_id in (None, agent.service_account_id)
