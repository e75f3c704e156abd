"""Agents of a project: made, listed, read, changed, deleted in the shape Mobius' clients know."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from contracts.freshness import NOTHING_KNOWN
from contracts.records import Agent, JsonObject
from contracts.tenant_events import EventType
from gateway.cursor import read_cursor, write_cursor
from gateway.endpoints.agents import forget_beats
from gateway.parts import Rooms
from gateway.project_agents import narrowed_by
from gateway.project_views import project_agent_view
from gateway.projects import agent_in, owner_of
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_projects import (
    AgentStatusWord,
    NewProjectAgent,
    ProjectAgentChange,
    ProjectAgentPage,
    ProjectAgentView,
)
from gateway.signs import known_signs
from router.sessions import presence

endpoints = APIRouter(route_class=StrictRoute, tags=["projects"])
_AGENTS = "/v1/projects/{project}/agents"
_AGENT = _AGENTS + "/{agent_id}"


@endpoints.post(_AGENTS, status_code=201, responses={201: {"model": ProjectAgentView}})
async def create_project_agent(project: str, new: NewProjectAgent, caller: Caller, house: House) -> Answer:
    """Make an agent, backed by a service account for life."""
    agent = await house.agents.create(new.agent_for(owner_of(project, caller)), caller)
    await house.notices.agent(EventType.AGENT_CREATED, agent)
    return Answer(project_agent_view(agent, presence(agent, (), NOTHING_KNOWN)), 201)


@endpoints.get(_AGENTS, responses={200: {"model": ProjectAgentPage}})
async def list_project_agents(
    project: str,
    request: Request,
    caller: Caller,
    house: House,
    service_account_id: str | None = None,
    status: AgentStatusWord | None = None,
    kind: Annotated[str, Query(max_length=64)] | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> Answer:
    """The agents by name: all of them, or those that fit, `capabilities.<path>=<value>` in the query included."""
    owner = owner_of(project, caller)
    wanted = narrowed_by(request.query_params.multi_items(), status=status, kind=kind, account_id=service_account_id)
    scope = f"project-agents:{owner}:{wanted.scope}"
    after = read_cursor(cursor, scope) if cursor is not None else ""
    agents, last = await house.project_agents.page(owner, wanted, caller, after=after, limit=limit)
    return Answer(
        {
            "items": await _views(agents, house),
            "next_cursor": write_cursor(last, scope) if last else None,
            "has_more": last is not None,
        }
    )


@endpoints.get(_AGENT, responses={200: {"model": ProjectAgentView}})
async def read_project_agent(project: str, agent_id: str, caller: Caller, house: House) -> Answer:
    """One agent, by its id or its name."""
    agent = await agent_in(house.directory, owner_of(project, caller), agent_id, caller, action="agent.read")
    [view] = await _views([agent], house)
    return Answer(view)


@endpoints.patch(_AGENT, responses={200: {"model": ProjectAgentView}})
async def change_project_agent(
    project: str, agent_id: str, change: ProjectAgentChange, caller: Caller, house: House
) -> Answer:
    """Change what is named; the rest stays. An inactive agent is given nothing new, and keeps what it has."""
    agent = await agent_in(house.directory, owner_of(project, caller), agent_id, caller, action="agent.update")
    changed, _ = await house.agents.change(agent.id, change.change(), caller)
    await house.notices.agent(EventType.AGENT_UPDATED, changed)
    [view] = await _views([changed], house)
    return Answer(view)


@endpoints.delete(_AGENT, status_code=204)
async def delete_project_agent(project: str, agent_id: str, caller: Caller, house: House) -> Response:
    """Delete an agent with its sessions. What it holds is not cancelled."""
    agent = await agent_in(house.directory, owner_of(project, caller), agent_id, caller, action="agent.delete")
    gone = await house.agents.delete(agent.id, caller)
    await house.notices.agent(EventType.AGENT_DELETED, gone)
    await forget_beats(gone, house)
    return Response(status_code=204)


async def _views(agents: Sequence[Agent], house: Rooms) -> list[JsonObject]:
    sessions = [await house.directory.attached(agent.id) for agent in agents]
    signs = await known_signs(house.parts.beats, [session.id for each in sessions for session in each])
    return [
        project_agent_view(agent, presence(agent, each, signs)) for agent, each in zip(agents, sessions, strict=True)
    ]
