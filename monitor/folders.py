"""Session folders kept attached: what `attachment` decides is done here, one call per folder at a time."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from contracts.clock import Clock, Ids
from contracts.errors import Conflict, NotFound, PostroomError
from contracts.heartbeats import Pulse
from monitor.attachment import TOKEN_RANDOM_BYTES, Action, Pace, Reported, next_action, session_token
from monitor.bell import Bell
from monitor.heartbeat import Beat, BeatReason, judge
from monitor.ports import Attached, FolderName, Gateway, HostedAgent, Spool

RETRY_S: Final = 2.0
DETACH_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One attached folder. `reported` is what the gateway last heard of it; `proof` is for beats over the broker."""

    folder: FolderName
    session_id: str
    is_default: bool
    proof: str | None
    reported: Reported
    beat: Beat


class Folders:
    """The session folders of one agent. `is_due` says whether one of them is to be reported."""

    def __init__(
        self,
        *,
        agent: HostedAgent,
        monitor_id: str,
        max_age_s: float,
        pace: Pace,
        gateway: Gateway,
        spool: Spool,
        clock: Clock,
        ids: Ids,
        bell: Bell,
        tasks: TaskGroup,
        booted_at: datetime | None = None,
        broker_carries: Callable[[], bool] = lambda: False,
    ) -> None:
        self.agent = agent
        self.is_due = False
        self._monitor_id = monitor_id
        self._broker_carries = broker_carries
        self._max_age_s = max_age_s
        self._pace = pace
        self._gateway = gateway
        self._spool = spool
        self._clock = clock
        self._ids = ids
        self._bell = bell
        self._tasks = tasks
        self._booted_at = booted_at
        self._sessions: dict[FolderName, Session] = {}
        self._suspect: dict[FolderName, BeatReason] = {}
        self._busy: set[FolderName] = set()
        self._log = structlog.get_logger().bind(agent_id=agent.id)

    def fresh(self) -> Sequence[Session]:
        """The attached sessions that live, the default one first."""
        alive = [session for session in self._sessions.values() if session.beat.is_fresh]
        return sorted(alive, key=lambda session: (not session.is_default, session.folder))

    def take_pushes(self) -> bool:
        """Say whether a push would find a session here: one that lives, or one whose attach is under way."""
        return bool(self._busy or self.fresh())

    def attached(self) -> Sequence[Session]:
        """The attached sessions for which nothing else is under way."""
        return [session for folder, session in self._sessions.items() if folder not in self._busy]

    def pulses(self) -> Iterator[Pulse]:
        """What is to be said over the broker of the sessions that live, each as old as its touch is now."""
        now = self._clock.now()
        for session in self.fresh():
            if session.proof is not None:
                yield Pulse(session_id=session.session_id, proof=session.proof, age_s=session.beat.age_at(now))

    def reported(self, sessions: Sequence[Session], ended: Collection[str]) -> None:
        """Note what the gateway was told of those of these sessions that are ours, and which of them have ended."""
        now = self._clock.now()
        for session in sessions:
            present = self._sessions.get(session.folder)
            if present is not None and present.session_id == session.session_id:
                self._note_report(present, session.beat, now, has_ended=session.session_id in ended)

    def tick(self) -> None:
        """Look at every folder once and start what is due, but for the reports."""
        self.is_due = False
        now = self._clock.now()
        present = {folder: self._judge(folder, now) for folder in self._spool.folders(self.agent.slug)}
        for folder in sorted(present.keys() | self._sessions.keys()):
            self._look(folder, present.get(folder), now)

    async def detach_all(self) -> None:
        """Detach every session, all at once, in bounded time: the gateway must not push to nobody."""
        with anyio.move_on_after(DETACH_TIMEOUT_S, shield=True):
            async with anyio.create_task_group() as tasks:
                for folder in list(self._sessions):
                    tasks.start_soon(self._detach_once, folder)

    def _judge(self, folder: FolderName, now: datetime) -> Beat:
        beat = judge(self._spool.heartbeat(folder), now, max_age_s=self._max_age_s, booted_at=self._booted_at)
        self._tell_suspect(folder, beat)
        return beat

    def _tell_suspect(self, folder: FolderName, beat: Beat) -> None:
        """Once per change: a file is looked at many times a minute."""
        suspect = beat.reason in (BeatReason.UNSAFE, BeatReason.CLOCK_SUSPECT)
        if suspect and self._suspect.get(folder) != beat.reason:
            self._log.warning(beat.reason.value, session=str(folder), reason=beat.detail)
        if suspect:
            self._suspect[folder] = beat.reason
        else:
            self._suspect.pop(folder, None)

    def _look(self, folder: FolderName, beat: Beat | None, now: datetime) -> None:
        session = self._sessions.get(folder)
        if session is not None and beat is not None:
            session = self._sessions[folder] = replace(session, beat=beat)
            if not self._spool.has_sidecar(folder):
                # Removed and made anew between two looks: whoever is there now has no token.
                session = None
        is_carried = session is not None and session.proof is not None and self._broker_carries()
        action = next_action(session.reported if session else None, beat, now, self._pace, is_carried=is_carried)
        if action is Action.NOTHING or folder in self._busy:
            return
        if action is Action.BEAT:
            self.is_due = True
            return
        self._busy.add(folder)
        self._tasks.start_soon(self._perform, action, folder, beat)

    async def _perform(self, action: Action, folder: FolderName, beat: Beat | None) -> None:
        try:
            if action is Action.DETACH:
                await self._detach(folder)
            elif beat is not None:
                await self._attach(folder, beat)
        except (PostroomError, OSError) as error:
            code = error.code if isinstance(error, PostroomError) else repr(error)
            self._log.warning("session_not_reported", session=str(folder), action=action, code=code)
            await anyio.sleep(RETRY_S)
        finally:
            self._busy.discard(folder)
        self._bell.ring()

    async def _attach(self, folder: FolderName, beat: Beat) -> None:
        token = session_token(self._ids.ulid(), self._ids.secret(TOKEN_RANDOM_BYTES))
        attached = await self._attach_anew(folder, token)
        now = self._clock.now()
        self._spool.write_sidecar(
            folder,
            {
                "agent_id": self.agent.id,
                "address": self.agent.address,
                "label": folder.label,
                "session_id": attached.session_id,
                "session_token": token,
                "attached_at": now.isoformat(),
            },
        )
        self._sessions[folder] = Session(
            folder=folder,
            session_id=attached.session_id,
            is_default=attached.is_default,
            proof=attached.beat_proof,
            reported=Reported(at=now, beat=beat),
            beat=beat,
        )
        self._log.info("session_attached", session=str(folder), session_id=attached.session_id)

    async def _attach_anew(self, folder: FolderName, token: str) -> Attached:
        """Attach. The label is ours: one that is attached already is what a monitor that died left behind."""
        try:
            return await self._gateway.attach(self.agent.id, folder.label, token, self._monitor_id)
        except Conflict:
            self._log.info("session_taken_over", session=str(folder))
            await self._detach_at_gateway(folder)
            return await self._gateway.attach(self.agent.id, folder.label, token, self._monitor_id)

    def _note_report(self, session: Session, beat: Beat, now: datetime, *, has_ended: bool) -> None:
        folder = session.folder
        if has_ended:
            self._log.warning("session_lost", session=str(folder))
            self._sessions.pop(folder, None)
            return
        if session.reported.beat.is_fresh != beat.is_fresh:
            event = "session_fresh" if beat.is_fresh else "session_stale"
            self._log.info(event, session=str(folder), reason=beat.reason)
        self._sessions[folder] = replace(session, reported=Reported(at=now, beat=beat))

    async def _detach(self, folder: FolderName) -> None:
        await self._detach_at_gateway(folder)
        self._sessions.pop(folder, None)
        self._spool.remove_sidecar(folder)
        self._log.info("session_detached", session=str(folder))

    async def _detach_once(self, folder: FolderName) -> None:
        try:
            await self._detach(folder)
        except PostroomError as error:
            self._log.warning("session_not_detached", session=str(folder), code=error.code)

    async def _detach_at_gateway(self, folder: FolderName) -> None:
        try:
            await self._gateway.detach(self.agent.id, folder.label)
        except NotFound:
            self._log.debug("session_was_detached", session=str(folder))
