"""Agents: register, list, read, change, delete."""

from collections.abc import Sequence
from typing import Annotated, Final, TypeAlias

import structlog
from fastapi import APIRouter, Query, Request, Response

from contracts.errors import Malformed, Unavailable
from contracts.freshness import NOTHING_KNOWN, asked_name, echo_name, host_name
from contracts.records import Agent, JsonObject
from contracts.tenant_events import EventType
from contracts.words import Channel
from gateway.address import parse_address
from gateway.agent_search import AgentSearch
from gateway.cursor import read_cursor, write_cursor
from gateway.parts import Rooms
from gateway.peer_views import agent_as_theirs, is_peers_client
from gateway.project_agents import narrowed_by
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_agent_views import AgentPage, AgentView, AgentWithSecret
from gateway.schemas_agents import AgentChange, NewAgent
from gateway.schemas_views import ChannelWord
from gateway.signs import known_signs
from gateway.views import agent_view

endpoints = APIRouter(route_class=StrictRoute, tags=["agents"])
log = structlog.get_logger()

SearchText: TypeAlias = Annotated[str, Query(min_length=1, max_length=200)]
STATUSES: Final = ("active", "inactive", "online", "away", "offline")
StatusWord: TypeAlias = Annotated[str, Query(json_schema_extra={"enum": list(STATUSES)})]
Deleted: TypeAlias = Annotated[bool, Query(description="Deleted agents as well. Their names are gone.")]
MAX_OFFSET: Final = 1_000


@endpoints.post("/v1/agents", status_code=201, responses={201: {"model": AgentWithSecret}})
async def create_agent(new: NewAgent, request: Request, caller: Caller, house: House) -> Answer:
    """Register an agent."""
    agent = await house.agents.create(new, caller)
    await house.notices.agent(EventType.AGENT_CREATED, agent)
    view = agent_view(agent, (), NOTHING_KNOWN, house.parts.clock.now())
    [shown] = _spelled([view], request)
    return Answer(_with_secret(shown, agent, is_new=agent.webhook_secret is not None), 201)


@endpoints.get("/v1/agents", responses={200: {"model": AgentPage}})
async def list_agents(
    request: Request,
    caller: Caller,
    house: House,
    capability: ChannelWord | None = None,
    specialization: SearchText | None = None,
    tool: SearchText | None = None,
    q: SearchText | None = None,
    kind: SearchText | None = None,
    status: StatusWord | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    cursor: str | None = None,
    include_deleted: Deleted = False,
) -> Answer:
    """One's own agents by slug: all of them, or those that fit every word that is given.

    `capabilities.<path>=<value>` asks what their capability maps hold there.
    """
    if status not in (None, *STATUSES):
        raise Malformed("invalid_status", f"The status is one of: {', '.join(STATUSES)}.", field="status")
    channel = Channel(capability) if capability else None
    narrowed = narrowed_by(request.query_params.multi_items(), status=None, kind=kind, account_id=None)
    search = AgentSearch(
        capability=channel,
        specialization=specialization,
        tool=tool,
        q=q,
        status=status,
        selector=narrowed.selector,
    )
    scope = f"agents:{caller.owner}:{search.scope}"
    after = read_cursor(cursor, scope) if cursor is not None else ""
    searches, many = house.agent_searches, offset + limit
    own = await house.directory.confines(caller, "agent.list")
    agents, last = await searches.page(
        caller.owner, search, after=after, limit=many, with_deleted=include_deleted, among=own
    )
    is_whole = cursor is None and last is None and len(agents) < many
    page = {
        "agents": _spelled(await _views(agents[offset:], house), request),
        "next_cursor": write_cursor(last, scope) if last else None,
        "total": await searches.total(
            caller.owner, search, len(agents), is_whole=is_whole, with_deleted=include_deleted, among=own
        ),
    }
    return Answer({**page, "limit": limit, "offset": offset})


@endpoints.get("/v1/agents/{ref}", responses={200: {"model": AgentView}})
async def read_agent(
    ref: str, request: Request, caller: Caller, house: House, include_deleted: Deleted = False
) -> Answer:
    """One agent with its attached live sessions."""
    address = parse_address(ref, field="ref")
    agent = await house.directory.resolve(address, caller, action="agent.read", with_deleted=include_deleted)
    [view] = _spelled(await _views([agent], house), request)
    return Answer(view)


@endpoints.patch("/v1/agents/{ref}", responses={200: {"model": AgentWithSecret}})
async def change_agent(ref: str, change: AgentChange, request: Request, caller: Caller, house: House) -> Answer:
    """Change what is named; the rest stays."""
    agent, is_new = await house.agents.change(ref, change, caller)
    await house.notices.agent(EventType.AGENT_UPDATED, agent)
    [view] = _spelled(await _views([agent], house), request)
    return Answer(_with_secret(view, agent, is_new=is_new))


@endpoints.delete("/v1/agents/{ref}", status_code=204)
async def delete_agent(ref: str, caller: Caller, house: House) -> Response:
    """Delete an agent. Its name is free at once; its messages keep their history."""
    agent = await house.agents.delete(ref, caller)
    await house.notices.agent(EventType.AGENT_DELETED, agent)
    await forget_beats(agent, house)
    return Response(status_code=204)


def _spelled(views: Sequence[JsonObject], request: Request) -> list[JsonObject]:
    is_theirs = is_peers_client(request.scope["headers"])
    return [agent_as_theirs(view) if is_theirs else view for view in views]


async def _views(agents: Sequence[Agent], house: Rooms) -> list[JsonObject]:
    sessions = [await house.directory.attached(agent.id) for agent in agents]
    signs = await known_signs(house.parts.beats, [session.id for each in sessions for session in each])
    now = house.parts.clock.now()
    return [agent_view(agent, each, signs, now) for agent, each in zip(agents, sessions, strict=True)]


async def forget_beats(agent: Agent, house: Rooms) -> None:
    try:
        await house.parts.beats.forget([host_name(agent.id), asked_name(agent.id), echo_name(agent.id)])
    except Unavailable as error:
        # The beat of an agent nobody can address any more does no harm.
        log.warning("beat_not_forgotten", agent_id=agent.id, code=error.code)


def _with_secret(view: JsonObject, agent: Agent, *, is_new: bool) -> JsonObject:
    return {**view, "webhook_secret": agent.webhook_secret} if is_new else view
