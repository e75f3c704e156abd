"""Who may send to somebody else's agents: directed, given and withdrawn by the owner of the agents alone."""

from typing import Final

from contracts.clock import Clock
from contracts.directory import Grant, SlugEntry, agent_key, grant_key, slug_key
from contracts.errors import Invalid, NotFound
from contracts.ids import OWNER
from contracts.records import Agent, Principal
from contracts.words import AgentStatus
from gateway.address import Address, ById, BySlug
from gateway.directory import decided
from gateway.ports import DirectoryStore, Write
from gateway.problems import agent_not_found

# Where there is no agent, this one is looked for: an absent name costs what a name costs that may not be addressed.
_NOBODYS_ID: Final = "agent_000000000000"
_NOBODY: Final = "-"


class Grants:
    """Changes of grants, and the agents they open. A change counts everywhere within two seconds."""

    def __init__(self, *, store: DirectoryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def give(self, to: str, principal: Principal) -> tuple[Grant, bool]:
        """Let `to` send to the caller's externally addressable agents; the second answer says whether that is new."""
        if to == principal.owner:
            raise Invalid("own_owner", "One's own agents need no grant.", field="owner")
        return await decided(lambda: self._give(to, principal.owner))

    async def given(self, principal: Principal) -> list[Grant]:
        """The caller's grants, by owner."""
        found = [await self._store.get(key, Grant) for key in await self._store.keys(grant_key(principal.owner, "*"))]
        return [each.record for each in found if each]

    async def withdraw(self, to: str, principal: Principal) -> None:
        """Raises `NotFound` (`grant_not_found`) when there is none."""
        if not OWNER.match(to):
            raise _no_grant()
        await decided(lambda: self._withdraw(grant_key(principal.owner, to)))

    async def addressee(self, address: Address, principal: Principal) -> Agent:
        """Somebody else's agent that the caller may send to.

        Raises one and the same `NotFound` for everything else, after as many lookups whether or not there is such an
        agent; without a grant an owner's names are not looked at, so nothing about them shows in the time either.
        """
        agent = await self._opened(address, principal)
        if agent is None or not is_open(agent):
            raise agent_not_found()
        return agent

    async def admits(self, giver: str, principal: Principal) -> bool:
        """Whether the caller may send to those of this owner's agents that are open; see `is_open`."""
        return await self._granted(giver, principal)

    # --- the steps -------------------------------------------------------------------------------------------------

    async def _give(self, to: str, giver: str) -> tuple[Grant, bool]:
        key = grant_key(giver, to)
        found = await self._store.get(key, Grant, fresh=True)
        if found is not None:
            return found.record, False
        grant = Grant(giver=giver, to=to, created_at=self._clock.now())
        await self._store.transact([Write(key=key, record=grant, expected_seq=0)])
        return grant, True

    async def _withdraw(self, key: str) -> None:
        found = await self._store.get(key, Grant, fresh=True)
        if found is None:
            raise _no_grant()
        await self._store.transact([Write(key=key, record=None, expected_seq=found.seq)])

    async def _opened(self, address: Address, principal: Principal) -> Agent | None:
        match address:
            case ById(agent_id):
                agent = await self._agent(agent_id)
                granted = await self._granted(agent.owner if agent else _NOBODY, principal)
                return agent if granted else None
            case BySlug(slug, str(owner)) if owner != principal.owner:
                return await self._named(owner, slug) if await self._granted(owner, principal) else None
            case _:
                return None

    async def _granted(self, giver: str, principal: Principal) -> bool:
        return await self._store.get(grant_key(giver, principal.owner), Grant) is not None

    async def _named(self, owner: str, slug: str) -> Agent | None:
        entry = await self._store.get(slug_key(owner, slug), SlugEntry)
        agent = await self._agent(entry.record.agent_id if entry else _NOBODYS_ID)
        return agent if entry else None

    async def _agent(self, agent_id: str) -> Agent | None:
        found = await self._store.get(agent_key(agent_id), Agent)
        return found.record if found else None


def is_open(agent: Agent) -> bool:
    """Whether others may send to it, if its owner lets them."""
    return agent.external_addressable and agent.status is AgentStatus.ACTIVE and agent.deleted_at is None


def _no_grant() -> NotFound:
    return NotFound("grant_not_found", "There is no such grant.")
