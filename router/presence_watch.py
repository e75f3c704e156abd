"""Tells of agents' presence when it changes: once per transition, whichever router sees it, and never because of ours.

    directory ──changes──▶ due ──taken by one router──▶ look ──▶ note sessions past their deadline, compare-and-set
                            ▲                                    tell what the log does not say yet, likewise
                            └──when a session may stand differently──┘

The log itself remembers what was told last: an event says which one it comes behind, and the broker takes it only if
that is still so. So two routers, one that died half-way and a Redis that was emptied neither lose nor repeat anything.
"""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import anyio
import structlog

from contracts.clock import Clock
from contracts.errors import PostroomError, Stale, Unavailable
from contracts.freshness import Signs
from contracts.ids import agent_of_session
from contracts.records import Agent
from contracts.tenant_events import EventType, StoredEvent
from router.presence_metrics import PresenceMetrics
from router.presence_ports import (
    Listening,
    Look,
    PresenceChange,
    PresenceDue,
    PresenceLog,
    PresencePlace,
    PresenceRecords,
    SessionsHeld,
)
from router.presence_turns import noted_stale, past_deadline, stale_event, transition, untold_stale, watched_of

LOOK_EVERY_S: Final = 0.5
BATCH: Final = 256
"""So many agents are looked at by one script, which takes about a millisecond in which Redis does nothing else."""
AT_ONCE: Final = 32
NOTED_AT_ONCE: Final = 100
NOTE_PAUSE_S: Final = 0.05
"""Between two portions of many changes: two thousand agents a second, when all of the directory is read."""
ATTEMPTS: Final = 10

log = structlog.get_logger("router.presence_watch")


class PresenceWatch:
    """One router's watch. `run` returns when cancelled."""

    def __init__(
        self,
        *,
        records: PresenceRecords,
        listening: Listening,
        due: PresenceDue,
        log: PresenceLog,
        clock: Clock,
        metrics: PresenceMetrics,
    ) -> None:
        self._records = records
        self._listening = listening
        self._due = due
        self._log = log
        self._clock = clock
        self._metrics = metrics
        self._news = anyio.Event()

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._follow)
            group.start_soon(self._look_when_due)

    # --- who is due ------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_one_era(await self._due.begin(await self._records.last_seq()))
            except Unavailable as error:
                log.warning("presence_changes_postponed", reason=error.code)
                await anyio.sleep(error.retry_after_s)

    async def _follow_one_era(self, place: PresencePlace) -> None:
        """Note what changes, until the store is emptied: then all of the directory is new to it."""
        log.info("presence_followed", era=place.era, after_seq=place.seq)
        async with aclosing(self._records.changes(place.seq)) as batches:
            async for batch in batches:
                for start in range(0, len(batch) or 1, NOTED_AT_ONCE):
                    if not await self.note(place, batch[start : start + NOTED_AT_ONCE]):
                        return

    async def note(self, place: PresencePlace, changes: Sequence[PresenceChange]) -> bool:
        """Make those due that changed; False when the store was emptied. Without changes that is all it asks."""
        reached = PresencePlace(era=place.era, seq=changes[-1].seq if changes else place.seq)
        is_same_era = await self._due.note(reached, changes)
        if changes and is_same_era:
            self._news.set()
        if len(changes) == NOTED_AT_ONCE:
            await anyio.sleep(NOTE_PAUSE_S)
        return is_same_era

    async def sessions_gone(self, session_ids: Sequence[str]) -> None:
        """Look at the agents of these sessions at once: their process is known to be gone."""
        agents = {agent_id for agent_id in map(agent_of_session, session_ids) if agent_id}
        try:
            await self._due.look_at(sorted(agents))
        except Unavailable as error:
            log.warning("presence_of_gone_sessions_postponed", agents=len(agents), reason=error.code)
        self._news.set()

    # --- looking ---------------------------------------------------------------------------------------------------

    async def _look_when_due(self) -> None:
        while True:
            self._news = anyio.Event()
            try:
                is_more = await self.look()
            except Unavailable as error:
                log.warning("presence_looks_postponed", reason=error.code)
                is_more = False
            with anyio.move_on_after(0 if is_more else LOOK_EVERY_S):
                await self._news.wait()

    async def look(self) -> bool:
        """Look at a portion of the agents that are due; True when there may be more of them."""
        taken = await self._due.take(BATCH)
        self._metrics.due(taken.backlog)
        limiter = anyio.CapacityLimiter(AT_ONCE)

        async def look_at(look: Look) -> None:
            async with limiter:
                await self._look_at(look)

        async with anyio.create_task_group() as group:
            for look in taken.looks:
                group.start_soon(look_at, look)
        return taken.is_more

    async def _look_at(self, look: Look) -> None:
        """Look at one agent. Whoever cannot finish leaves it to who is given it next, a few seconds later."""
        began_at = anyio.current_time()
        try:
            for _ in range(ATTEMPTS):
                try:
                    await self._settle(look)
                except Stale as error:
                    log.debug("presence_read_again", agent_id=look.agent_id, record=error.record)
                else:
                    break
        except Unavailable as error:
            self._metrics.postponed()
            log.warning("presence_look_postponed", agent_id=look.agent_id, reason=error.code)
        except (PostroomError, ValueError) as error:
            # A record nobody can read must not hide those of other agents.
            self._metrics.postponed()
            log.exception("presence_unreadable", agent_id=look.agent_id, exc_info=error)
        self._metrics.looked(anyio.current_time() - began_at)

    async def _settle(self, look: Look) -> None:
        agent = await self._records.agent(look.agent_id)
        if agent is None or agent.deleted_at is not None:
            await self._due.settle(look, 0, ())
            return
        # Before the sessions: whoever tells something newer in between makes ours `Stale`.
        told = await self._log.newest(agent.owner, agent.id, EventType.AGENT_PRESENCE)
        held, signs = await self._read(agent)
        if gone := past_deadline(held.sessions, signs):
            await self._note_stale(agent, held, gone)
            held, signs = await self._read(agent)
        await self._tell_stale(agent, held)
        await self._tell_presence(agent, held, signs, told)
        await self._due.settle(look, held.seq, watched_of(agent, held.sessions, signs))

    async def _read(self, agent: Agent) -> tuple[SessionsHeld, Signs]:
        """The sessions first: one that attaches behind that is a change of its own."""
        held = await self._records.sessions(agent.id)
        signs = await self._listening.signs([each.id for each in held.sessions if each.is_attached])
        return held, signs

    async def _note_stale(self, agent: Agent, held: SessionsHeld, gone: frozenset[str]) -> None:
        sessions = noted_stale(held.sessions, gone, self._clock.now())
        await self._records.set_sessions(agent.id, sessions, expected_seq=held.seq)

    # --- telling ---------------------------------------------------------------------------------------------------

    async def _tell_stale(self, agent: Agent, held: SessionsHeld) -> None:
        if not any(each.stale_at for each in held.sessions):
            return
        while True:
            newest = await self._log.newest(agent.owner, agent.id, EventType.SESSION_STALE)
            untold = untold_stale(held.sessions, newest)
            if not untold:
                return
            await self._log.publish_behind(stale_event(agent, *untold[0]), newest.seq if newest else 0)
            self._metrics.told_stale()

    async def _tell_presence(self, agent: Agent, held: SessionsHeld, signs: Signs, told: StoredEvent | None) -> None:
        event = transition(agent, held.sessions, signs, told, self._clock.now())
        if event is None:
            return
        await self._log.publish_behind(event, told.seq if told else 0)
        self._metrics.told(event)
        log.info(
            "presence_changed",
            agent_id=agent.id,
            before=event.data["from"],
            after=event.data["to"],
            sessions=event.data["sessions"]["connected"],
        )
