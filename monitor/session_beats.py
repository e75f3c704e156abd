"""Beats for all sessions of this host: often and unanswered over the broker, and now and then over HTTPS.

    every `CARRIED_EVERY_S`   one message for all sessions that live; nobody says whether it arrived
    when a session is due     one call for all sessions; its answer says which of them have ended

While the broker carries beats a touch alone makes no session due; see `monitor.attachment`.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import anyio
import structlog

from contracts.errors import PostroomError
from contracts.heartbeats import render_beats
from contracts.subjects import heartbeat
from monitor.backoff import jittered
from monitor.bell import Bell
from monitor.folders import Folders, Session
from monitor.ports import SESSIONS_PER_CALL, Gateway, PushFeed

CARRIED_EVERY_S: Final = 5.0
LOOK_S: Final = 60.0
RETRY_S: Final = 2.0

log = structlog.get_logger()


class SessionBeats:
    """`tick` says that the folders were looked at; `carry` and `report` run beside each other."""

    def __init__(
        self, *, monitor_id: str, folders: Mapping[str, Folders], gateway: Gateway, pushes: PushFeed, bell: Bell
    ) -> None:
        self._monitor_id = monitor_id
        self._folders = folders
        self._gateway = gateway
        self._pushes = pushes
        self._bell = bell
        self._soon = Bell()
        self._due = Bell()
        self._carried: frozenset[str] = frozenset()

    def tick(self) -> None:
        """Wake whoever has something to say: somebody came or went, or has to be reported."""
        if self._alive() != self._carried:
            self._soon.ring()
        if self._is_due():
            self._due.ring()

    def carry_soon(self) -> None:
        """The way to the broker is open again, and what was said before may be lost."""
        self._soon.ring()

    async def carry(self) -> None:
        """Beat over the broker until cancelled."""
        while True:
            await self._carry_once()
            await self._soon.wait(jittered(CARRIED_EVERY_S))

    async def report(self) -> None:
        """Beat over HTTPS, when somebody is due, until cancelled."""
        while True:
            if self._is_due():
                await self._report_once()
            else:
                await self._due.wait(LOOK_S)

    async def _carry_once(self) -> None:
        self._carried = self._alive()
        pulses = [pulse for folders in self._folders.values() for pulse in folders.pulses()]
        for message in render_beats(pulses):
            if not await self._pushes.say(heartbeat(self._monitor_id), message):
                return

    def _alive(self) -> frozenset[str]:
        return frozenset(session.session_id for folders in self._folders.values() for session in folders.fresh())

    def _is_due(self) -> bool:
        return any(folders.is_due for folders in self._folders.values())

    async def _report_once(self) -> None:
        try:
            for some in self._portions():
                ended = await self._gateway.beat_sessions({session.session_id: session.beat.age_s for session in some})
                for folders in self._folders.values():
                    folders.reported(some, ended)
        except PostroomError as error:
            log.warning("sessions_not_reported", code=error.code)
            await anyio.sleep(RETRY_S)
        for folders in self._folders.values():
            folders.is_due = False
        # Whoever could not be told, or has ended, is due again at the next look.
        self._bell.ring()

    def _portions(self) -> Iterator[list[Session]]:
        """Every attached session of the host, as many as one call takes at a time."""
        sessions = [session for folders in self._folders.values() for session in folders.attached()]
        for start in range(0, len(sessions), SESSIONS_PER_CALL):
            yield sessions[start : start + SESSIONS_PER_CALL]
