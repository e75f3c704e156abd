"""Live sessions and hosts: attach, list, change, beat, detach."""

from datetime import timedelta
from typing import Final

from fastapi import APIRouter

from contracts.errors import Rejected
from contracts.freshness import host_name
from contracts.records import Principal
from contracts.tenant_events import EventType
from gateway.endpoints.agents import last_seen
from gateway.parts import Rooms
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_agents import Attach, EchoHeard, HostBeat, SessionBeat, SessionChange
from gateway.schemas_views import EchoView, SeenView, SessionPage, SessionView, SessionWithToken
from gateway.views import session_view

endpoints = APIRouter(route_class=StrictRoute, tags=["live sessions"])

_SESSIONS = "/v1/agents/{ref}/live-sessions"
JUST_NOW: Final = SessionBeat()


@endpoints.post(_SESSIONS, status_code=201, responses={201: {"model": SessionWithToken}})
async def attach_session(ref: str, wanted: Attach, caller: Caller, house: House) -> Answer:
    """Attach a live session. Its token is shown this once."""
    agent = await house.directory.find(ref, caller, action="session.attach", field="ref")
    session, token = await house.sessions.attach(agent, wanted)
    await house.notices.session(EventType.SESSION_ATTACHED, agent, session)
    if session.echoes:
        await house.echoes.keep_up(agent.id)
    view = session_view(session, session.attached_at, house.parts.clock.now())
    return Answer({**view, "session_token": token}, 201)


@endpoints.get(_SESSIONS, responses={200: {"model": SessionPage}})
async def list_sessions(ref: str, caller: Caller, house: House, include_detached: bool = False) -> Answer:
    """The sessions of an agent, oldest first."""
    agent = await house.directory.find(ref, caller, action="session.read", field="ref")
    sessions = [each for each in await house.directory.sessions(agent.id) if include_detached or each.is_attached]
    seen = await last_seen(house, [each.id for each in sessions])
    now = house.parts.clock.now()
    return Answer({"live_sessions": [session_view(each, seen.get(each.id), now) for each in sessions]})


@endpoints.patch(_SESSIONS + "/{label}", responses={200: {"model": SessionView}})
async def change_session(ref: str, label: str, wanted: SessionChange, caller: Caller, house: House) -> Answer:
    """Make a session the default, rotate its token, or both."""
    agent = await house.directory.find(ref, caller, action="session.update", field="ref")
    session = await house.sessions.change(agent, label, wanted)
    seen = await last_seen(house, [session.id])
    return Answer(session_view(session, seen.get(session.id), house.parts.clock.now()))


@endpoints.post(_SESSIONS + "/{label}/heartbeat", responses={200: {"model": SessionView}})
async def beat_session(ref: str, label: str, caller: Caller, house: House, beat: SessionBeat = JUST_NOW) -> Answer:
    """A session's sign of life."""
    agent = await house.directory.find(ref, caller, action="session.beat", field="ref")
    session = await house.sessions.attached(agent, label)
    session, seen_at = await house.sessions.beat(agent, session, beat)
    if session.echoes:
        await house.echoes.keep_up(agent.id)
    return Answer(session_view(session, seen_at, house.parts.clock.now()))


@endpoints.delete(_SESSIONS + "/{label}", responses={200: {"model": SessionView}})
async def detach_session(ref: str, label: str, caller: Caller, house: House) -> Answer:
    """Detach a session for good."""
    agent = await house.directory.find(ref, caller, action="session.detach", field="ref")
    session = await house.sessions.detach(agent, label)
    await house.notices.session(EventType.SESSION_DETACHED, agent, session)
    return Answer(session_view(session, None, house.parts.clock.now()))


@endpoints.post("/v1/hosts/heartbeat", responses={200: {"model": SeenView}})
async def beat_host(beat: HostBeat, caller: Caller, house: House) -> Answer:
    """A monitor's sign of life for the agents it runs. Those the caller does not have are left out."""
    found = [await _own_agent_id(reference, caller, house) for reference in beat.agents]
    agent_ids = list(dict.fromkeys(agent_id for agent_id in found if agent_id))
    seen_at = house.parts.clock.now() - timedelta(seconds=beat.age_s)
    if agent_ids:
        await house.parts.beats.beat({host_name(agent_id): seen_at for agent_id in agent_ids})
    return Answer({"seen": agent_ids})


@endpoints.post("/v1/hosts/echo", responses={200: {"model": EchoView}})
async def answer_echo(heard: EchoHeard, caller: Caller, house: House) -> Answer:
    """Say that an echo arrived; without `echo_id`, ask for one, as a monitor does whose subscription came back."""
    agent = await house.directory.find(heard.agent_id, caller, action="host.echo", field="agent_id")
    asks = heard.echo_id is None
    is_done = await (
        house.echoes.ask(agent.id) if heard.echo_id is None else house.echoes.answer(agent.id, heard.echo_id)
    )
    return Answer({"agent_id": agent.id, "asked": asks and is_done, "counted": is_done and not asks})


async def _own_agent_id(reference: str, caller: Principal, house: Rooms) -> str | None:
    try:
        return (await house.directory.find(reference, caller, action="host.beat", field="agents")).id
    except Rejected as error:
        if error.code == "agent_not_found":
            return None
        raise
