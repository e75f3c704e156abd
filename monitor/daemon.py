"""The daemon: one per host. Who is served is resolved first, then everything runs side by side until it is stopped.

start ▶ leftovers killed ▶ agents resolved ▶ half-done claims finished ▶ ┬ pushes
                                                                        ├ echoes
                                                                        ├ host beats
                                                                        ├ session folders: attach, hand over
                                                                        ├ session beats
                                                                        ├ slow polls
                                                                        └ background runs
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from contracts.clock import Clock, Ids
from contracts.errors import PostroomError, Rejected, Unauthenticated
from contracts.ids import ECHO_ID, EXECUTION_ID
from contracts.records import Echo, Envelope
from contracts.subjects import pushes_of
from contracts.words import Channel
from monitor.attachment import Pace
from monitor.backoff import jittered, persist
from monitor.bell import Bell
from monitor.configuration import AgentSettings, Configuration, ConfigurationError
from monitor.echoes import Echoes
from monitor.folders import Folders
from monitor.handlers import Handover, forget_old_claims
from monitor.outbox import Outbox
from monitor.ports import Gateway, HostedAgent, Journal, Programs, PushFeed, Spool, Waiting
from monitor.session_beats import SessionBeats
from monitor.spawns import Background, end_leftovers

RESCAN_S: Final = 2.0
"""How often every folder is looked at, whatever the operating system tells of changes."""
BEATS_WITHIN_AGE: Final = 3
"""How often a touched session is reported over HTTPS within its age, though the broker carries its beats: nobody says
whether those arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One agent of this host, with what is done for it."""

    agent: HostedAgent
    settings: AgentSettings

    @property
    def subjects(self) -> list[str]:
        channels = [Channel.LIVE] * self.settings.sessions + [Channel.BG] * (self.settings.background is not None)
        return [pushes_of(channel, self.agent.id) for channel in channels]


class Readiness:
    """Says once that everything it waits for has happened."""

    def __init__(self, awaited: set[str], ready: Callable[[], None]) -> None:
        self._awaited = awaited
        self._ready = ready

    def reached(self, what: str) -> None:
        if what in self._awaited:
            self._awaited.discard(what)
            if not self._awaited:
                self._ready()


class Daemon:
    """Made of its ports and its configuration; `run` returns only by being cancelled, or raises."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        gateway: Gateway,
        pushes: PushFeed,
        programs: Programs,
        spool: Spool,
        journal: Journal,
        clock: Clock,
        ids: Ids,
        base_env: Mapping[str, str],
        booted_at: datetime | None = None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._configuration = configuration
        self._gateway = gateway
        self._pushes = pushes
        self._programs = programs
        self._spool = spool
        self._journal = journal
        self._clock = clock
        self._ids = ids
        self._base_env = base_env
        self._booted_at = booted_at
        self._ready = ready
        self._bell = Bell()
        self._poll_bell = Bell()
        self._folders: dict[str, Folders] = {}
        self._handovers: dict[str, Handover] = {}
        self._background: dict[str, Background] = {}
        self._echoes = Echoes(gateway)
        self._session_beats = SessionBeats(
            monitor_id=configuration.monitor_id,
            folders=self._folders,
            gateway=gateway,
            pushes=pushes,
            bell=self._bell,
        )
        self._log = structlog.get_logger().bind(monitor_id=configuration.monitor_id)

    async def run(self) -> None:
        """Serve until cancelled. Raises `ConfigurationError` when the gateway does not know what is configured."""
        with self._journal.exclusive():
            await end_leftovers(self._programs, self._journal, self._gateway)
            self._programs.sweep()
            forget_old_claims(self._journal, self._clock.now())
            served = await self._resolve()
            async with anyio.create_task_group() as tasks:
                await self._prepare(served, tasks)
                await self._serve(served, tasks)

    # --- start -----------------------------------------------------------------------------------------------------

    async def _resolve(self) -> list[Served]:
        served = [
            Served(agent=await self._resolve_one(number, settings), settings=settings)
            for number, settings in enumerate(self._configuration.agents)
        ]
        if len({each.agent.slug for each in served}) != len(served):
            raise ConfigurationError("agents: two of them have the same slug, so they would share their folders")
        return served

    async def _resolve_one(self, number: int, settings: AgentSettings) -> HostedAgent:
        try:
            return await persist(lambda: self._gateway.agent(settings.agent), what="resolve_agent")
        except Unauthenticated:
            raise ConfigurationError("key: the gateway does not accept it") from None
        except Rejected as refusal:
            raise ConfigurationError(f"agents.{number}.agent: the gateway answers {refusal.code}") from None

    async def _prepare(self, served: Sequence[Served], tasks: TaskGroup) -> None:
        outbox = Outbox(gateway=self._gateway, journal=self._journal, spool=self._spool, tasks=tasks)
        outbox.resume()
        for each in served:
            if each.settings.sessions:
                self._prepare_sessions(each, outbox, tasks)
            if each.settings.background is not None:
                self._prepare_background(each)
        for handover in self._handovers.values():
            await handover.recover()

    def _prepare_sessions(self, served: Served, outbox: Outbox, tasks: TaskGroup) -> None:
        agent = served.agent
        self._spool.prepare(agent.slug)
        max_age_s = served.settings.heartbeat_max_age_s or agent.heartbeat_age_s
        folders = self._folders[agent.id] = Folders(
            agent=agent,
            monitor_id=self._configuration.monitor_id,
            max_age_s=max_age_s,
            pace=Pace(beat_every_s=self._configuration.beat_every_s, carried_gap_s=max_age_s / BEATS_WITHIN_AGE),
            gateway=self._gateway,
            spool=self._spool,
            clock=self._clock,
            ids=self._ids,
            bell=self._bell,
            tasks=tasks,
            booted_at=self._booted_at,
            broker_carries=lambda: self._pushes.is_speaking,
        )
        self._handovers[agent.id] = Handover(
            folders=folders,
            outbox=outbox,
            gateway=self._gateway,
            spool=self._spool,
            journal=self._journal,
            clock=self._clock,
            bell=self._bell,
            tasks=tasks,
        )

    def _prepare_background(self, served: Served) -> None:
        assert served.settings.background is not None
        self._background[served.agent.id] = Background(
            agent=served.agent,
            settings=served.settings.background,
            worker_id=self._configuration.monitor_id,
            poll_every_s=self._configuration.poll_every_s,
            base_env=self._base_env,
            gateway=self._gateway,
            programs=self._programs,
            journal=self._journal,
        )

    async def _serve(self, served: Sequence[Served], tasks: TaskGroup) -> None:
        readiness = Readiness({"subscribed"} | ({"beaten"} if self._background else set()), self._say_ready)
        subjects = [subject for each in served for subject in each.subjects]
        self._log.info("monitor_started", agents=[each.agent.id for each in served])
        tasks.start_soon(self._pushes.follow, subjects, self._heard, lambda: self._subscribed(readiness), self._echoed)
        for background in self._background.values():
            tasks.start_soon(background.run)
        tasks.start_soon(self._beat, readiness)
        if self._handovers:
            tasks.start_soon(self._watch)
            tasks.start_soon(self._poll)
            tasks.start_soon(self._echoes.run)
            tasks.start_soon(self._session_beats.carry)
            tasks.start_soon(self._session_beats.report)
            tasks.start_soon(self._attend)

    def _say_ready(self) -> None:
        self._log.info("monitor_ready")
        self._ready()

    # --- pushes and polls ------------------------------------------------------------------------------------------

    def _heard(self, envelope: Envelope) -> None:
        if not EXECUTION_ID.match(envelope.execution_id):
            self._log.warning("push_malformed", reason="not_an_execution_id")
        elif envelope.channel is Channel.LIVE and envelope.agent_id in self._handovers:
            self._handovers[envelope.agent_id].hear(_waiting(envelope))
        elif envelope.channel is Channel.BG and envelope.agent_id in self._background:
            self._background[envelope.agent_id].hear(envelope.execution_id)

    def _echoed(self, echo: Echo) -> None:
        if not ECHO_ID.match(echo.echo_id):
            self._log.warning("push_malformed", reason="not_an_echo_id")
        elif self._may_vouch_for(echo.agent_id):
            self._echoes.hear(echo)

    def _may_vouch_for(self, agent_id: str) -> bool:
        """Of sessions on another host our hearing says nothing."""
        folders = self._folders.get(agent_id)
        return folders is not None and folders.take_pushes()

    def _echoing(self) -> list[str]:
        return [agent_id for agent_id in self._folders if self._may_vouch_for(agent_id)]

    def _subscribed(self, readiness: Readiness) -> None:
        """From now on we hear; what was pushed before has to be asked for."""
        readiness.reached("subscribed")
        self._poll_bell.ring()
        self._session_beats.carry_soon()
        self._echoes.ask_for(self._echoing())
        for background in self._background.values():
            background.poll_soon()

    async def _poll(self) -> None:
        """The slow poll behind lost live pushes."""
        while True:
            for agent_id, handover in self._handovers.items():
                if self._folders[agent_id].fresh():
                    await self._poll_one(agent_id, handover)
            await self._poll_bell.wait(jittered(self._configuration.poll_every_s))

    async def _poll_one(self, agent_id: str, handover: Handover) -> None:
        try:
            for waiting in await self._gateway.claimable(agent_id):
                if waiting.channel is Channel.LIVE and waiting.agent_id == agent_id:
                    handover.hear(waiting)
        except PostroomError as error:
            self._log.warning("poll_failed", agent_id=agent_id, code=error.code)

    async def _beat(self, readiness: Readiness) -> None:
        """The host lives: said for every agent whose background work it runs or to whose sessions pushes go."""
        while True:
            try:
                await persist(self._beat_once, what="beat_host")
                readiness.reached("beaten")
            except Rejected as refusal:
                self._log.error("host_beat_refused", code=refusal.code)
            await anyio.sleep(jittered(self._configuration.beat_every_s))

    async def _beat_once(self) -> None:
        working, echoing = list(self._background), self._echoing()
        if working or echoing:
            await self._gateway.beat_host(self._configuration.monitor_id, working, echoing)

    # --- session folders -------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        async for _ in self._spool.changes():
            self._bell.ring()

    async def _attend(self) -> None:
        try:
            while True:
                self._look()
                await self._bell.wait(RESCAN_S)
        finally:
            with anyio.CancelScope(shield=True):
                await self._detach_all()

    def _look(self) -> None:
        for agent_id, folders in self._folders.items():
            try:
                folders.tick()
                self._handovers[agent_id].tick()
            except (OSError, PostroomError) as error:
                # A full disk, or a journal somebody damaged: the other agents go on, and this one is tried again.
                self._log.error("spool_failed", agent_id=agent_id, error=repr(error))
        self._session_beats.tick()

    async def _detach_all(self) -> None:
        async with anyio.create_task_group() as tasks:
            for agent_id in self._folders:
                tasks.start_soon(self._detach_agent, agent_id)

    async def _detach_agent(self, agent_id: str) -> None:
        await self._handovers[agent_id].settle()
        await self._folders[agent_id].detach_all()


def _waiting(envelope: Envelope) -> Waiting:
    return Waiting(
        execution_id=envelope.execution_id,
        message_id=envelope.message_id,
        agent_id=envelope.agent_id,
        channel=envelope.channel,
        nonce=envelope.nonce,
        claim_before=envelope.claim_before,
        served_at=envelope.sent_at,
    )
