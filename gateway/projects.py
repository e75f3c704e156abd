"""Projects: what Mobius' clients call an owner's namespace, who may name which, and the agents found in them."""

from typing import Final

from contracts.errors import Invalid, NotFound
from contracts.ids import OWNER
from contracts.records import Agent, Principal
from gateway.address import Address, ById, BySlug, parse_address
from gateway.directory import Directory
from gateway.problems import agent_not_found

SESSIONS_WORD: Final = "sessions"
"""Begins the paths of sessions where an agent's id or name stands in others: no agent is found under it."""


def owner_of(project: str, caller: Principal) -> str:
    """The owner that `{project}` of a path stands for: the caller's own, or anybody for an admin key.

    Every other name gets the same `NotFound` (`project_not_found`), whether there is such an owner or not.
    """
    if OWNER.match(project) and (caller.admin or project == caller.owner):
        return project
    raise NotFound("project_not_found", "There is no such project.")


def address_in(owner: str, reference: str) -> Address:
    """What `{id}` of a path below a project names: `agt_…`, `agent_…`, or the agent's name there."""
    if reference == SESSIONS_WORD:
        raise agent_not_found()
    try:
        address = parse_address(reference, field="id")
    except Invalid:
        raise agent_not_found() from None
    return address if isinstance(address, ById) else BySlug(address.slug, address.owner or owner)


async def agent_in(directory: Directory, owner: str, reference: str, caller: Principal, *, action: str) -> Agent:
    """The agent of this project, if the caller may do `action` to it; whatever else it is, it is not found."""
    agent = await directory.resolve(address_in(owner, reference), caller, action=action)
    if agent.owner != owner:
        raise agent_not_found()
    return agent
