"""Sessions register, beat and end. One record per agent holds them all, so every rule about them is atomic.

Of a live session's token only the SHA-256 is kept. A session ends for good; the last few stay on record for a while.
"""

import base64
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import anyio
import structlog

from contracts.clock import Clock, Ids
from contracts.directory import LiveSessions, live_key
from contracts.errors import Conflict, Malformed, NotFound, Unavailable
from contracts.freshness import NOTHING_KNOWN, beat_of
from contracts.ids import session_id as id_of_session
from contracts.records import Agent, LiveSession
from contracts.words import AttestationLevel, SessionStatus
from gateway.beat_advice import next_beat_after_s
from gateway.directory import decided
from gateway.ports import Announcer, Beats, DirectoryStore, Write
from gateway.schemas_agents import Attach, SessionBeat, SessionChange
from gateway.schemas_sessions import Register
from gateway.session_changes import (
    Entered,
    Sessions,
    alter,
    detach,
    disconnect,
    enter,
    find,
    find_attached,
    needs_signs,
    not_attached,
)
from gateway.signs import known_signs
from router.attestation import token_hash
from router.sessions import overdue_after

OLDEST_SAID: Final = timedelta(hours=23)
"""A live session's file may be older; whoever says so still lives, and is not past its deadline of a day for it."""
LONGEST_WAIT_S: Final = 5.0
"""A change takes a few milliseconds."""

T = TypeVar("T")
Change: TypeAlias = Callable[[Sessions], tuple[Sessions, T]]
log = structlog.get_logger()


class LiveSessionBook:
    """Changes of the sessions of agents the caller was already allowed to touch."""

    def __init__(self, *, store: DirectoryStore, beats: Beats, announcer: Announcer, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._beats = beats
        self._announcer = announcer
        self._clock = clock
        self._ids = ids
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def attach(self, agent: Agent, wanted: Attach) -> tuple[Entered, str]:
        """Attach a live session; returns it with its token. Raises `Conflict` (`live_session_conflict`)."""
        token = wanted.session_token or base64.urlsafe_b64encode(self._ids.secret(24)).decode()
        entered = await self._enter(agent, self._live(agent, wanted, token))
        await self._announcer.session_attached(agent.id)
        return entered, token

    async def register(self, agent: Agent, wanted: Register) -> Entered:
        """Register a session that says that a worker is there, and to which nothing is pushed."""
        return await self._enter(agent, self._worker(wanted))

    async def change(self, agent: Agent, label: str, wanted: SessionChange) -> LiveSession:
        """Make a session the default, rotate its token, or both."""
        if not wanted.is_default and wanted.session_token is None:
            raise Malformed("no_mutable_fields", "Send is_default or session_token.")
        digest = token_hash(wanted.session_token) if wanted.session_token else None
        make_default = bool(wanted.is_default)
        return await self._change(
            agent.id, lambda sessions: alter(sessions, label, token_sha256=digest, make_default=make_default)
        )

    async def attached(self, agent: Agent, label: str) -> LiveSession:
        """The attached live session of this label. Raises `NotFound`."""
        return await self._known(agent.id, lambda sessions: find_attached(sessions, label))

    async def session(self, agent: Agent, session_id: str) -> LiveSession:
        """The session of this id, ended or not. Raises `NotFound`."""
        return await self._known(agent.id, lambda sessions: find(sessions, session_id))

    async def known(self, wanted: Mapping[str, Collection[str]]) -> dict[str, LiveSession]:
        """The sessions of these ids, wanted of each of these agents, that are on record; looked up together."""
        found = await self._store.get_all([live_key(each) for each in wanted], LiveSessions)
        known: dict[str, LiveSession] = {}
        for agent_id, held in zip(wanted, found, strict=True):
            sessions = {each.id: each for each in held.record.sessions} if held else {}
            if not sessions.keys() >= set(wanted[agent_id]):
                sessions = await self._as_they_are(agent_id)
            known |= {each: sessions[each] for each in wanted[agent_id] if each in sessions}
        return known

    async def beat(self, agent: Agent, session: LiveSession, beat: SessionBeat) -> tuple[LiveSession, datetime]:
        """Note a live session's sign of life; returns it with the instant it was last seen, by the server's clock."""
        [seen_at] = await self.beat_all([(session, timedelta(seconds=beat.age_s))])
        if seen_at is None:
            raise not_attached()
        if beat.monitor_version and beat.monitor_version != session.monitor_version:
            version = beat.monitor_version
            session = await self._change(
                agent.id, lambda sessions: alter(sessions, session.label, monitor_version=version)
            )
        return session, seen_at

    async def beat_all(self, lives: Sequence[tuple[LiveSession, timedelta]]) -> Sequence[datetime | None]:
        """Note these sessions' signs of life, so old; for each when it counts as seen, None where it has ended."""
        now = self._clock.now()
        beats = [beat_of(each, now - _said(each, age)) for each, age in lives if each.is_attached]
        seen = await self._beats.beat_sessions(beats) if beats else []
        seen_at = dict(zip((each.session_id for each in beats), seen, strict=True))
        return [seen_at.get(session.id) for session, _ in lives]

    async def detach(self, agent: Agent, label: str) -> LiveSession:
        """Detach a live session for good and forget its beat."""
        gone = await self._change(agent.id, lambda sessions: detach(sessions, label, self._clock.now()))
        await self._forget([gone.id])
        return gone

    async def disconnect(self, agent: Agent, session_id: str) -> tuple[LiveSession, bool]:
        """End a session for good; the second answer says whether it was this call that did."""
        signs = await known_signs(self._beats, [session_id])
        now = self._clock.now()

        def end(sessions: Sessions) -> tuple[Sessions, tuple[LiveSession, bool]]:
            rest, session = disconnect(sessions, session_id, now, signs)
            return rest, (session, rest is not sessions)

        session, has_ended = await self._change(agent.id, end)
        if has_ended:
            await self._forget([session_id])
        return session, has_ended

    def next_beat_after_s(self, session: LiveSession, agent: Agent, *, is_first: bool = False) -> float:
        """When this session had better beat next."""
        dice = self._ids.secret(1)[0] / 256
        return next_beat_after_s(overdue_after(session, agent), self._beats.known, dice, is_first=is_first)

    # --- the steps of a change -------------------------------------------------------------------------------------

    async def _enter(self, agent: Agent, wanted: LiveSession) -> Entered:
        async def attempt() -> Entered:
            found = await self._store.get(live_key(agent.id), LiveSessions, fresh=True)
            sessions = found.record.sessions if found else ()
            new = replace(wanted, id=self._free_id(agent, wanted, sessions))
            names = [session.id for session in sessions if session.is_attached]
            signs = await self._beats.signs(names) if needs_signs(sessions, new) else NOTHING_KNOWN
            entered = enter(sessions, new, signs)
            await self._write(agent.id, entered.sessions, found.seq if found else 0)
            return entered

        async with self._turn(agent.id):
            entered = await decided(attempt)
        await self._forget([session.id for session in entered.ended])
        await self._note_first(entered.session)
        return entered

    async def _change(self, agent_id: str, change: Change[T]) -> T:
        async def attempt() -> T:
            found = await self._store.get(live_key(agent_id), LiveSessions, fresh=True)
            before = found.record.sessions if found else ()
            sessions, touched = change(before)
            if sessions is not before:
                await self._write(agent_id, sessions, found.seq if found else 0)
            return touched

        async with self._turn(agent_id):
            return await decided(attempt)

    @asynccontextmanager
    async def _turn(self, agent_id: str) -> AsyncIterator[None]:
        """Changes of one agent's sessions wait for each other here: a fleet that starts at once fails nobody."""
        turn = self._turns.setdefault(agent_id, anyio.Lock())
        with anyio.move_on_after(LONGEST_WAIT_S) as wait:
            await turn.acquire()
        if wait.cancelled_caught:
            raise Unavailable("contended", "Too many callers change this at once.")
        try:
            yield
        finally:
            turn.release()

    async def _write(self, agent_id: str, sessions: Sessions, expected_seq: int) -> None:
        write = Write(key=live_key(agent_id), record=LiveSessions(sessions=sessions), expected_seq=expected_seq)
        await self._store.transact([write])

    async def _known(self, agent_id: str, look: Callable[[Sessions], LiveSession]) -> LiveSession:
        """What memory does not know is looked for afresh before it is refused."""
        found = await self._store.get(live_key(agent_id), LiveSessions)
        try:
            return look(found.record.sessions if found else ())
        except NotFound:
            found = await self._store.get(live_key(agent_id), LiveSessions, fresh=True)
            return look(found.record.sessions if found else ())

    async def _as_they_are(self, agent_id: str) -> dict[str, LiveSession]:
        found = await self._store.get(live_key(agent_id), LiveSessions, fresh=True)
        return {each.id: each for each in found.record.sessions} if found else {}

    async def _note_first(self, session: LiveSession) -> None:
        try:
            await self._beats.beat({session.id: session.attached_at})
        except Unavailable as error:
            # Whoever has registered counts as seen then, noted or not.
            log.warning("first_beat_not_noted", session_id=session.id, code=error.code)

    async def _forget(self, session_ids: Sequence[str]) -> None:
        try:
            await self._beats.forget(session_ids)
        except Unavailable as error:
            # The beat of a session that has ended does no harm.
            log.warning("beat_not_forgotten", session_ids=list(session_ids), code=error.code)

    def _free_id(self, agent: Agent, new: LiveSession, sessions: Sessions) -> str:
        taken = {session.id for session in sessions}
        chance = int.from_bytes(self._ids.secret(3), "big")
        while (free := id_of_session(agent.id, new.attached_at, chance)) in taken:
            chance += 1
        return free

    def _live(self, agent: Agent, wanted: Attach, token: str) -> LiveSession:
        return LiveSession(
            id="",
            label=wanted.label,
            task_name=wanted.task_name or wanted.label,
            token_sha256=token_hash(token),
            attached_at=self._clock.now(),
            is_default=wanted.is_default,
            attestation=AttestationLevel(wanted.attestation) if wanted.attestation else agent.attestation,
            monitor_version=wanted.monitor_version,
            cue_id=wanted.cue_id,
            echoes=wanted.echoes,
            monitor_id=wanted.monitor_id,
        )

    def _worker(self, wanted: Register) -> LiveSession:
        return LiveSession(
            id="",
            label="",
            task_name="",
            token_sha256="",
            attached_at=self._clock.now(),
            transport=wanted.transport,
            metadata=wanted.metadata,
            overdue_s=wanted.overdue_after_seconds,
            terminal_s=wanted.stale_after_seconds,
        )


def session_ended(status: SessionStatus) -> Conflict:
    """A session that has ended does not come back."""
    return Conflict("session_ended", "This session has ended. Register another one.", session_status=status.value)


def _said(session: LiveSession, age: timedelta) -> timedelta:
    return min(age, OLDEST_SAID) if session.is_live else age
