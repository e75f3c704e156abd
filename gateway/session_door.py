"""Sessions by their ids: found for a caller, beaten for singly and many at a time, and shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from contracts.errors import NotFound
from contracts.freshness import NOTHING_KNOWN, Signs
from contracts.ids import agent_of_session
from contracts.records import Agent, JsonObject, LiveSession, Principal
from contracts.words import SessionStatus
from gateway.directory import Directory
from gateway.live_sessions import LiveSessionBook, session_ended
from gateway.ports import Beats
from gateway.projects import agent_in
from gateway.session_changes import session_not_found
from gateway.session_views import worker_session_view
from gateway.signs import known_signs
from router.explain import instant
from router.sessions import status_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A session and whose it is."""

    agent: Agent
    session: LiveSession


class SessionDoor:
    """A session's id says which agent it belongs to, so nothing is searched; foreign looks like absent."""

    def __init__(self, *, directory: Directory, sessions: LiveSessionBook, beats: Beats) -> None:
        self._directory = directory
        self._sessions = sessions
        self._beats = beats

    async def find(
        self, owner: str, session_id: str, caller: Principal, *, action: str, agent: Agent | None = None
    ) -> Found:
        """The session of this id in the owner's namespace, where it is named of this agent. Raises `NotFound`."""
        agent_id = agent_of_session(session_id)
        if agent is None and agent_id is not None:
            agent = await self._agent_in(owner, agent_id, caller, action)
        if agent is None:
            raise session_not_found()
        return Found(agent=agent, session=await self._sessions.session(agent, session_id))

    async def shown(self, agent: Agent, sessions: Sequence[LiveSession]) -> list[JsonObject]:
        signs = await self.signs(sessions)
        return [self.view(each, agent, signs) for each in sessions]

    async def signs(self, sessions: Sequence[LiveSession]) -> Signs:
        return await known_signs(self._beats, [session.id for session in sessions])

    def view(self, session: LiveSession, agent: Agent, signs: Signs, *, is_first: bool = False) -> JsonObject:
        next_beat_s = self._sessions.next_beat_after_s(session, agent, is_first=is_first)
        return worker_session_view(session, agent, signs, next_beat_s)

    async def beat(self, found: Found) -> JsonObject:
        """Note a session's sign of life. Raises `Conflict` (`session_ended`)."""
        session = found.session
        [seen_at] = await self._sessions.beat_all([(session, timedelta(0))])
        if seen_at is None:
            status = status_of(session, NOTHING_KNOWN)
            raise session_ended(SessionStatus.STALE if status is SessionStatus.CONNECTED else status)
        return self.view(session, found.agent, Signs(as_of=seen_at, heard={session.id: seen_at}))

    async def beat_many(
        self, said: Sequence[tuple[str, float]], caller: Principal
    ) -> tuple[list[JsonObject], float | None, list[str]]:
        """Note the beats of many sessions: what came of each, when to beat next, and whose pushes' way may be tried."""
        own = await self._own([session_id for session_id, _ in said], caller)
        found = [own.get(session_id) for session_id, _ in said]
        lives = [(each.session, timedelta(seconds=age_s)) for each, (_, age_s) in zip(found, said, strict=True) if each]
        seen = iter(await self._sessions.beat_all(lives))
        views = [
            _beat_view(session_id, each, next(seen) if each else None)
            for (session_id, _), each in zip(said, found, strict=True)
        ]
        fresh = [each for each, view in zip(found, views, strict=True) if each and view["status"] == "connected"]
        next_s = min((self._sessions.next_beat_after_s(each.session, each.agent) for each in fresh), default=None)
        echoing = dict.fromkeys(each.agent.id for each in fresh if each.session.echoes)
        return views, next_s, list(echoing)

    async def _agent_in(self, owner: str, agent_id: str, caller: Principal, action: str) -> Agent | None:
        try:
            return await agent_in(self._directory, owner, agent_id, caller, action=action)
        except NotFound:
            return None

    async def _own(self, session_ids: Sequence[str], caller: Principal) -> dict[str, Found]:
        """Those of these sessions that are the caller's to beat for."""
        wanted: dict[str, list[str]] = {}
        for session_id in session_ids:
            if agent_id := agent_of_session(session_id):
                wanted.setdefault(agent_id, []).append(session_id)
        agents = await self._directory.find_all(list(wanted), caller, action="session.beat")
        sessions = await self._sessions.known({each: wanted[each] for each in agents})
        return {
            session_id: Found(agent=agents[agent_id], session=sessions[session_id])
            for agent_id in agents
            for session_id in wanted[agent_id]
            if session_id in sessions
        }


def _beat_view(session_id: str, found: Found | None, seen_at: datetime | None) -> JsonObject:
    status = "unknown"
    if found is not None:
        ended = status_of(found.session, NOTHING_KNOWN)
        is_late = seen_at is None and ended is SessionStatus.CONNECTED
        status = (SessionStatus.STALE if is_late else ended).value
    return {"session_id": session_id, "status": status, "last_seen_at": instant(seen_at)}
