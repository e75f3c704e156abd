"""Live sessions attach, beat and detach. One record per agent holds them all, so every rule about them is atomic.

Of a token only the SHA-256 is kept. A session is detached for good; the last few stay on record for whoever asks.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from contracts.clock import Clock, Ids
from contracts.directory import LiveSessions, live_key
from contracts.errors import Conflict, Malformed, NotFound
from contracts.records import Agent, LiveSession
from contracts.words import AttestationLevel
from gateway.directory import decided
from gateway.ports import Announcer, Beats, DirectoryStore, Write
from gateway.schemas_agents import Attach, SessionBeat, SessionChange
from router.attestation import token_hash

MAX_ATTACHED: Final = 20
MAX_DETACHED_KEPT: Final = 20

Sessions: TypeAlias = tuple[LiveSession, ...]
Change: TypeAlias = Callable[[Sessions], tuple[Sessions, LiveSession]]


class LiveSessionBook:
    """Changes of the sessions of agents the caller was already allowed to touch."""

    def __init__(self, *, store: DirectoryStore, beats: Beats, announcer: Announcer, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._beats = beats
        self._announcer = announcer
        self._clock = clock
        self._ids = ids

    async def attach(self, agent: Agent, wanted: Attach) -> tuple[LiveSession, str]:
        """Attach a session; returns it with its token. Raises `Conflict` (`live_session_conflict`)."""
        token = wanted.session_token or base64.urlsafe_b64encode(self._ids.secret(24)).decode()
        new = self._new(agent, wanted, token)
        attached = await self._change(agent.id, lambda sessions: attach(sessions, new, new.attached_at))
        await self._beats.beat({attached.id: new.attached_at})
        await self._announcer.session_attached(agent.id)
        return attached, token

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
        """The attached session of this label; what memory does not know is looked for afresh before it is refused."""
        for fresh in (False, True):
            found = await self._store.get(live_key(agent.id), LiveSessions, fresh=fresh)
            for session in found.record.sessions if found else ():
                if session.is_attached and session.label == label:
                    return session
        raise _not_attached()

    async def beat(self, agent: Agent, session: LiveSession, beat: SessionBeat) -> tuple[LiveSession, datetime]:
        """Note a session's sign of life; returns it with the instant it was last seen, by the server's clock."""
        seen_at = self._clock.now() - timedelta(seconds=beat.age_s)
        await self._beats.beat({session.id: seen_at})
        if beat.monitor_version and beat.monitor_version != session.monitor_version:
            version = beat.monitor_version
            session = await self._change(
                agent.id, lambda sessions: alter(sessions, session.label, monitor_version=version)
            )
        return session, seen_at

    async def detach(self, agent: Agent, label: str) -> LiveSession:
        """Detach a session for good and forget its beat."""
        gone = await self._change(agent.id, lambda sessions: detach(sessions, label, self._clock.now()))
        await self._beats.forget([gone.id])
        return gone

    async def _change(self, agent_id: str, change: Change) -> LiveSession:
        async def attempt() -> LiveSession:
            found = await self._store.get(live_key(agent_id), LiveSessions, fresh=True)
            sessions, touched = change(found.record.sessions if found else ())
            record = LiveSessions(sessions=_pruned(sessions))
            write = Write(key=live_key(agent_id), record=record, expected_seq=found.seq if found else 0)
            await self._store.transact([write])
            return touched

        return await decided(attempt)

    def _new(self, agent: Agent, wanted: Attach, token: str) -> LiveSession:
        return LiveSession(
            id=f"sess_{self._ids.ulid()}",
            label=wanted.label,
            task_name=wanted.task_name or wanted.label,
            token_sha256=token_hash(token),
            attached_at=self._clock.now(),
            is_default=wanted.is_default,
            attestation=AttestationLevel(wanted.attestation) if wanted.attestation else agent.attestation,
            monitor_version=wanted.monitor_version,
            cue_id=wanted.cue_id,
            echoes=wanted.echoes,
        )


def attach(sessions: Sessions, new: LiveSession, now: datetime) -> tuple[Sessions, LiveSession]:
    """`sessions` with `new` among them: the first is the default, and the oldest makes room for the twenty-first."""
    attached = [session for session in sessions if session.is_attached]
    if any(session.label == new.label for session in attached):
        raise Conflict("live_session_conflict", "A session with this label is attached.", field="label")
    for oldest in attached[: max(0, len(attached) + 1 - MAX_ATTACHED)]:
        sessions, _ = detach(sessions, oldest.label, now)
    if new.is_default:
        sessions = _without_default(sessions)
    elif not any(session.is_default for session in sessions):
        new = replace(new, is_default=True)
    return (*sessions, new), new


def alter(
    sessions: Sessions,
    label: str,
    *,
    token_sha256: str | None = None,
    monitor_version: str | None = None,
    make_default: bool = False,
) -> tuple[Sessions, LiveSession]:
    """`sessions` with the attached one of this label changed; making it the default takes that from the other."""
    session = find_attached(sessions, label)
    changed = replace(
        session,
        token_sha256=token_sha256 or session.token_sha256,
        monitor_version=monitor_version or session.monitor_version,
        is_default=make_default or session.is_default,
    )
    others = _without_default(sessions) if make_default else sessions
    return tuple(changed if each.id == session.id else each for each in others), changed


def detach(sessions: Sessions, label: str, now: datetime) -> tuple[Sessions, LiveSession]:
    """`sessions` with the attached one of this label detached; the oldest that remains inherits being the default."""
    session = find_attached(sessions, label)
    gone = replace(session, detached_at=now, is_default=False)
    rest = tuple(gone if each.id == session.id else each for each in sessions)
    heir = next((each for each in rest if each.is_attached), None) if session.is_default else None
    if heir is not None:
        rest = tuple(replace(each, is_default=True) if each.id == heir.id else each for each in rest)
    return rest, gone


def find_attached(sessions: Sequence[LiveSession], label: str) -> LiveSession:
    """The attached session of this label; raises `NotFound`."""
    for session in sessions:
        if session.is_attached and session.label == label:
            return session
    raise _not_attached()


def _not_attached() -> NotFound:
    return NotFound("live_session_not_found", "No session with this label is attached.")


def _without_default(sessions: Sessions) -> Sessions:
    return tuple(replace(session, is_default=False) if session.is_default else session for session in sessions)


def _pruned(sessions: Sessions) -> Sessions:
    """All attached sessions and the last few detached ones, in their order."""
    detached = sorted((session for session in sessions if session.detached_at), key=lambda each: str(each.detached_at))
    dropped = {session.id for session in detached[:-MAX_DETACHED_KEPT]}
    return tuple(session for session in sessions if session.id not in dropped)
