"""Live sessions and hosts: attach, list, change, beat, detach."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from fastapi import APIRouter, Request

from contracts.errors import Rejected
from contracts.freshness import NOTHING_KNOWN, Signs, host_name
from contracts.heartbeats import beat_proof
from contracts.records import JsonObject, LiveSession, Principal
from contracts.tenant_events import EventType
from gateway.endpoints.sessions import tell_entered
from gateway.parts import Rooms
from gateway.peer_views import is_peers_client
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_agents import Attach, EchoesHeard, EchoWanted, HostBeat, SessionBeat, SessionChange
from gateway.schemas_views import EchoesView, EchoTrialView, SeenView, SessionPage, SessionView, SessionWithToken
from gateway.views import session_view
from router.sessions import is_connected

endpoints = APIRouter(route_class=StrictRoute, tags=["live sessions"])

_SESSIONS = "/v1/agents/{ref}/live-sessions"
JUST_NOW: Final = SessionBeat()
IN_USUAL_TIME: Final = EchoWanted()


@endpoints.post(_SESSIONS, status_code=201, responses={201: {"model": SessionWithToken}})
async def attach_session(ref: str, wanted: Attach, caller: Caller, house: House) -> Answer:
    """Attach a live session. Its token is shown this once."""
    agent = await house.directory.find(ref, caller, action="session.attach", field="ref")
    entered, token = await house.sessions.attach(agent, wanted)
    session = entered.session
    await tell_entered(agent, entered, house)
    if session.echoes:
        await house.echoes.begin(agent.id)
    view = _seen(session, session.attached_at, house)
    proof = beat_proof(house.parts.beat_secret, session.id, session.monitor_id) if session.monitor_id else None
    return Answer({**view, "session_token": token, "beat_proof": proof}, 201)


@endpoints.get(_SESSIONS, responses={200: {"model": SessionPage | list[SessionView]}})
async def list_sessions(
    ref: str, request: Request, caller: Caller, house: House, include_detached: bool = False
) -> Answer:
    """The sessions of an agent, oldest first; for CueAPI's clients the list alone, newest first."""
    agent = await house.directory.find(ref, caller, action="session.read", field="ref")
    sessions = [each for each in await house.directory.sessions(agent.id) if each.is_live]
    signs = await house.session_door.signs(sessions)
    shown = [each for each in sessions if include_detached or is_connected(each, signs)]
    views = [session_view(each, signs, house.parts.clock.now()) for each in shown]
    return Answer(views[::-1] if is_peers_client(request.scope["headers"]) else {"live_sessions": views})


@endpoints.patch(_SESSIONS + "/{label}", responses={200: {"model": SessionView}})
async def change_session(ref: str, label: str, wanted: SessionChange, caller: Caller, house: House) -> Answer:
    """Make a session the default, rotate its token, or both."""
    agent = await house.directory.find(ref, caller, action="session.update", field="ref")
    session = await house.sessions.change(agent, label, wanted)
    signs = await house.session_door.signs([session])
    return Answer(session_view(session, signs, house.parts.clock.now()))


@endpoints.post(_SESSIONS + "/{label}/heartbeat", responses={200: {"model": SessionView}})
async def beat_session(ref: str, label: str, caller: Caller, house: House, beat: SessionBeat = JUST_NOW) -> Answer:
    """A session's sign of life."""
    agent = await house.directory.find(ref, caller, action="session.beat", field="ref")
    session = await house.sessions.attached(agent, label)
    session, seen_at = await house.sessions.beat(agent, session, beat)
    if session.echoes:
        await house.echoes.keep_up_session(agent.id)
    return Answer(_seen(session, seen_at, house))


@endpoints.delete(_SESSIONS + "/{label}", responses={200: {"model": SessionView}})
async def detach_session(ref: str, label: str, caller: Caller, house: House) -> Answer:
    """Detach a session for good."""
    agent = await house.directory.find(ref, caller, action="session.detach", field="ref")
    session = await house.sessions.detach(agent, label)
    await house.notices.session(EventType.SESSION_DETACHED, agent, session)
    return Answer(session_view(session, NOTHING_KNOWN, house.parts.clock.now()))


@endpoints.post("/v1/hosts/heartbeat", responses={200: {"model": SeenView}})
async def beat_host(beat: HostBeat, caller: Caller, house: House) -> Answer:
    """A monitor's sign of life for the agents it runs. Those the caller does not have are left out."""
    agent_ids = await _own_agent_ids(beat.agents, caller, house)
    seen_at = house.parts.clock.now() - timedelta(seconds=beat.age_s)
    if agent_ids:
        await house.parts.beats.beat({host_name(agent_id): seen_at for agent_id in agent_ids})
    if beat.echoes:
        await house.echoes.keep_up_host(await _own_agent_ids(beat.echoes, caller, house))
    return Answer({"seen": agent_ids})


@endpoints.post("/v1/hosts/echo", responses={200: {"model": EchoesView}})
async def answer_echoes(heard: EchoesHeard, caller: Caller, house: House) -> Answer:
    """Say which echoes arrived; without `echo_id`, ask for one, as a monitor does whose subscription came back.

    Agents the caller does not have are left out.
    """
    found = [(await _own_agent_id(each.agent_id, caller, house), each.echo_id) for each in heard.echoes]
    answers = [(agent_id, echo) for agent_id, echo in found if agent_id and echo]
    wishes = list(dict.fromkeys(agent_id for agent_id, echo in found if agent_id and not echo))
    counted = await house.echoes.answer(answers)
    asked = await house.echoes.ask(wishes)
    told = [(agent_id, False, counts) for (agent_id, _), counts in zip(answers, counted, strict=True)]
    told += [(agent_id, agent_id in asked, False) for agent_id in wishes]
    return Answer({"echoes": [{"agent_id": each, "asked": was, "counted": counts} for each, was, counts in told]})


@endpoints.post("/v1/agents/{ref}/echo", responses={200: {"model": EchoTrialView}})
async def try_echo(
    ref: str, request: Request, caller: Caller, house: House, wanted: EchoWanted = IN_USUAL_TIME
) -> Answer:
    """Try now whether pushes reach an agent's sessions, and wait for the answer."""
    agent = await house.directory.find(ref, caller, action="agent.echo", field="ref")
    echoing = sum(session.echoes for session in await house.directory.live(agent.id))
    trial = await house.echo_trials.reach(agent.id, wanted.timeout_s, request.receive)
    found = {"reached": trial.reached, "round_trip_ms": trial.round_trip_ms}
    return Answer({"agent_id": agent.id, **found, "timeout_s": wanted.timeout_s, "echoing": echoing})


def _seen(session: LiveSession, seen_at: datetime, house: Rooms) -> JsonObject:
    now = house.parts.clock.now()
    return session_view(session, Signs(as_of=now, heard={session.id: seen_at}), now)


async def _own_agent_ids(references: Sequence[str], caller: Principal, house: Rooms) -> list[str]:
    found = [await _own_agent_id(reference, caller, house) for reference in references]
    return list(dict.fromkeys(agent_id for agent_id in found if agent_id))


async def _own_agent_id(reference: str, caller: Principal, house: Rooms) -> str | None:
    try:
        return (await house.directory.find(reference, caller, action="host.beat", field="agents")).id
    except Rejected as error:
        if error.code == "agent_not_found":
            return None
        raise
