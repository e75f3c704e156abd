"""Sessions of workers: register, list, read, beat, disconnect, in the shape Mobius' clients know; and beats for many.

Each is found under three paths: by its id alone, below its agent, and as `presence` below its agent.
"""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Query

from contracts.freshness import NOTHING_KNOWN, Signs
from contracts.records import Agent, LiveSession, Principal
from contracts.tenant_events import EventType
from contracts.words import SessionStatus
from gateway.cursor import read_cursor, write_cursor
from gateway.parts import Rooms
from gateway.projects import agent_in, owner_of
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_sessions import (
    BeatsView,
    ManyBeats,
    Register,
    StatusWord,
    WorkerSessionPage,
    WorkerSessionView,
)
from gateway.session_changes import Entered
from gateway.session_door import Found
from gateway.session_views import newest_first
from router.sessions import status_of

# Before the routes of agents below a project: `sessions` is a word of these paths and no agent's name there.
endpoints = APIRouter(route_class=StrictRoute, tags=["sessions"])

_AGENTS = "/v1/projects/{project}/agents"
_FLAT = _AGENTS + "/sessions/{session_id}"
_OF_AGENT = _AGENTS + "/{agent_id}/sessions"
_PRESENCE = _AGENTS + "/{agent_id}/presence"
_NESTED = (_OF_AGENT + "/{session_id}", _PRESENCE + "/{session_id}")
ONE: TypeAlias = Annotated[str, Query(max_length=64)]


@endpoints.post("/v1/sessions/heartbeat", responses={200: {"model": BeatsView}})
async def beat_many_sessions(beats: ManyBeats, caller: Caller, house: House) -> Answer:
    """One beat for many sessions of one process. What has ended, or is unknown, is told and fails nobody else."""
    said = [(each.session_id, each.age_s) for each in beats.sessions]
    views, next_s, echoing = await house.session_door.beat_many(said, caller)
    if echoing:
        await house.echoes.keep_up_host(echoing)
    return Answer({"sessions": views, "next_beat_after_seconds": next_s})


@endpoints.post(_OF_AGENT, status_code=201, responses={201: {"model": WorkerSessionView}})
@endpoints.post(_PRESENCE, status_code=201, responses={201: {"model": WorkerSessionView}})
async def register_session(project: str, agent_id: str, wanted: Register, caller: Caller, house: House) -> Answer:
    """Register a session. It is connected, and counts as heard of now."""
    agent = await agent_in(house.directory, owner_of(project, caller), agent_id, caller, action="session.register")
    entered = await house.sessions.register(agent, wanted)
    await tell_entered(agent, entered, house)
    return Answer(house.session_door.view(entered.session, agent, NOTHING_KNOWN, is_first=True), 201)


@endpoints.get(_OF_AGENT, responses={200: {"model": WorkerSessionPage}})
@endpoints.get(_PRESENCE, responses={200: {"model": WorkerSessionPage}})
async def list_worker_sessions(
    project: str,
    agent_id: str,
    caller: Caller,
    house: House,
    status: StatusWord | None = None,
    transport: ONE | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> Answer:
    """An agent's sessions of all transports, the newest first: the connected ones, and those that ended last."""
    agent = await agent_in(house.directory, owner_of(project, caller), agent_id, caller, action="session.read")
    sessions = await house.directory.sessions(agent.id)
    signs = await house.session_door.signs(sessions)
    fitting = [each for each in sessions if _fits(each, signs, status, transport)]
    scope = f"sessions:{agent.id}:{status}:{transport}"
    page, last = newest_first(fitting, read_cursor(cursor, scope) if cursor is not None else "", limit)
    return Answer(
        {
            "items": [house.session_door.view(each, agent, signs) for each in page],
            "next_cursor": write_cursor(last, scope) if last else None,
            "has_more": last is not None,
        }
    )


@endpoints.get(_FLAT, responses={200: {"model": WorkerSessionView}})
async def read_session(project: str, session_id: str, caller: Caller, house: House) -> Answer:
    """One session, by its id alone."""
    return await _shown(await _found(project, session_id, caller, house, "session.read"), house)


@endpoints.post(_FLAT + "/heartbeat", responses={200: {"model": WorkerSessionView}})
async def beat_worker_session(project: str, session_id: str, caller: Caller, house: House) -> Answer:
    """A session's sign of life."""
    return await _beaten(await _found(project, session_id, caller, house, "session.beat"), house)


@endpoints.post(_FLAT + "/disconnect", responses={200: {"model": WorkerSessionView}})
async def disconnect_session(project: str, session_id: str, caller: Caller, house: House) -> Answer:
    """End a session for good. One that has ended stays as it ended."""
    return await _disconnected(await _found(project, session_id, caller, house, "session.disconnect"), house)


@endpoints.get(_NESTED[0], responses={200: {"model": WorkerSessionView}})
@endpoints.get(_NESTED[1], responses={200: {"model": WorkerSessionView}})
async def read_session_of_agent(project: str, agent_id: str, session_id: str, caller: Caller, house: House) -> Answer:
    """One session of an agent."""
    return await _shown(await _found(project, session_id, caller, house, "session.read", agent_id), house)


@endpoints.post(_NESTED[0] + "/heartbeat", responses={200: {"model": WorkerSessionView}})
@endpoints.post(_NESTED[1] + "/heartbeat", responses={200: {"model": WorkerSessionView}})
async def beat_session_of_agent(project: str, agent_id: str, session_id: str, caller: Caller, house: House) -> Answer:
    """A session's sign of life."""
    return await _beaten(await _found(project, session_id, caller, house, "session.beat", agent_id), house)


@endpoints.post(_NESTED[0] + "/disconnect", responses={200: {"model": WorkerSessionView}})
@endpoints.post(_NESTED[1] + "/disconnect", responses={200: {"model": WorkerSessionView}})
async def disconnect_session_of_agent(
    project: str, agent_id: str, session_id: str, caller: Caller, house: House
) -> Answer:
    """End a session for good. One that has ended stays as it ended."""
    return await _disconnected(await _found(project, session_id, caller, house, "session.disconnect", agent_id), house)


async def tell_entered(agent: Agent, entered: Entered, house: Rooms) -> None:
    """Tell of a new session, and of those that made room for it. Of stale ones the routers tell, whoever noted them."""
    for each in entered.ended:
        if each.stale_at is None:
            await house.notices.session(EventType.SESSION_DETACHED, agent, each)
    await house.notices.session(EventType.SESSION_ATTACHED, agent, entered.session)


async def _found(
    project: str, session_id: str, caller: Principal, house: Rooms, action: str, agent_id: str | None = None
) -> Found:
    owner = owner_of(project, caller)
    agent = None
    if agent_id is not None:
        agent = await agent_in(house.directory, owner, agent_id, caller, action=action)
    return await house.session_door.find(owner, session_id, caller, action=action, agent=agent)


async def _shown(found: Found, house: Rooms) -> Answer:
    [view] = await house.session_door.shown(found.agent, [found.session])
    return Answer(view)


async def _beaten(found: Found, house: Rooms) -> Answer:
    return Answer(await house.session_door.beat(found))


async def _disconnected(found: Found, house: Rooms) -> Answer:
    session, has_ended = await house.sessions.disconnect(found.agent, found.session.id)
    if has_ended:
        await house.notices.session(EventType.SESSION_DETACHED, found.agent, session)
    return await _shown(Found(agent=found.agent, session=session), house)


def _fits(session: LiveSession, signs: Signs, status: str | None, transport: str | None) -> bool:
    is_of_status = status is None or status_of(session, signs) is SessionStatus(status)
    return is_of_status and transport in (None, session.transport)
