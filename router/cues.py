"""Fires cues: when the time of one has come, once, whichever router does it; and looks after what each fire comes to.

    agenda ──due──▶ decide: one compare-and-set of the cue ──won──▶ make the message, under the fire's own id
       ▲                │ lost: look again                               │ refused ──▶ the fire has failed
       │                ▼                                                ▼
    every cue once a minute, changed ones at once      ledger ──ended──▶ note it on the cue, tell of a failure

What fires is decided by the cue's record alone. A router that dies between decision and message leaves an open fire on
it; whoever sees one without a message after `PATIENCE` makes the message, which is the same one.
"""

import heapq
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup

from contracts import ids
from contracts.clock import Clock
from contracts.cues import Cue, Fire, Transport
from contracts.errors import Conflict, PostroomError, Rejected, Stale, Unavailable
from contracts.records import Agent, JsonObject
from contracts.tenant_events import EventType, TenantEvent
from router import cue_turns
from router.cue_messages import alert_draft, is_scheduled, may_receive, scheduled_draft
from router.cue_turns import End, Turn
from router.execution import fold
from router.explain import instant
from router.ports import Directory, EventLog, Ledger, LedgerTail
from router.service import Draft, Service
from router.store_ports import CueStore

TICK_S: Final = 0.05
SCAN_EVERY_S: Final = 60.0
PATIENCE: Final = timedelta(seconds=3)
LONG_MISSED: Final = timedelta(hours=1)
AT_ONCE: Final = 16
ROUNDS: Final = 16
_ENDING: Final = frozenset({"accepted", "released", "replayed", "outcome_recorded", "ended"})

log = structlog.get_logger("router.cues")


@dataclass(slots=True)
class _Agenda:
    """When to look at which cue next, and which cue an open fire belongs to."""

    heap: list[tuple[datetime, str]] = field(default_factory=list)
    known: set[tuple[datetime, str]] = field(default_factory=set)
    cue_of: dict[str, str] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)

    def look_at(self, cue_id: str, at: datetime) -> None:
        # What is on it stays on it: a list of all cues may be older than the news of one.
        if (at, cue_id) not in self.known:
            self.known.add((at, cue_id))
            heapq.heappush(self.heap, (at, cue_id))

    def take_in(self, cue: Cue) -> None:
        if cue.next_fire_at is not None:
            self.look_at(cue.id, cue.next_fire_at)
        for fire in cue.fires:
            if fire.ended_at is not None:
                self.forget(fire.ulid)
                continue
            self.cue_of[fire.ulid] = cue.id
            if fire.ulid not in self.made:
                self.look_at(cue.id, fire.decided_at + PATIENCE)

    def forget(self, ulid: str) -> None:
        """A fire nobody waits for any more: its cue is gone, or remembers it no longer."""
        self.cue_of.pop(ulid, None)
        self.made.discard(ulid)

    def due(self, now: datetime) -> set[str]:
        found = set()
        while self.heap and self.heap[0][0] <= now:
            entry = heapq.heappop(self.heap)
            self.known.discard(entry)
            found.add(entry[1])
        return found


class CueRunner:
    """One router's part. `news` names cues that changed, and "" where any may have. `run` returns when cancelled."""

    def __init__(
        self,
        *,
        name: str,
        service: Service,
        store: CueStore,
        directory: Directory,
        ledger: Ledger,
        tail: LedgerTail,
        events: EventLog,
        news: AsyncIterator[str],
        clock: Clock,
    ) -> None:
        self._name = name
        self._service = service
        self._store = store
        self._directory = directory
        self._ledger = ledger
        self._tail = tail
        self._events = events
        self._news = news
        self._clock = clock
        self._agenda = _Agenda()
        self._acting: set[str] = set()
        self._places = anyio.CapacityLimiter(AT_ONCE)

    @property
    def followed(self) -> frozenset[str]:
        """The ulids of the fires whose end this router waits for."""
        return frozenset(self._agenda.cue_of)

    async def run(self) -> None:
        after = await _patiently(self._tail.last_seq)
        async with anyio.create_task_group() as group:
            group.start_soon(self._scan_for_ever)
            group.start_soon(self._hear)
            group.start_soon(self._follow, after, group)
            group.start_soon(self._act_when_due, group)

    # --- knowing ---------------------------------------------------------------------------------------------------

    async def _scan_for_ever(self) -> None:
        while True:
            await _patiently(self._scan)
            await anyio.sleep(SCAN_EVERY_S)

    async def _scan(self) -> None:
        for cue in await self._store.all():
            self._agenda.take_in(cue)

    async def _hear(self) -> None:
        async for cue_id in self._news:
            if cue_id:
                self._agenda.look_at(cue_id, self._clock.now())
            else:
                await _patiently(self._scan)

    async def _follow(self, after: int, group: TaskGroup) -> None:
        async with aclosing(self._tail.follow(after)) as batches:
            async for batch in batches:
                for moved in batch:
                    cue_id = self._agenda.cue_of.get(moved.ulid)
                    if cue_id is not None and moved.stored.event.type in _ENDING:
                        group.start_soon(self._settle_or_look_again, cue_id, moved.ulid)

    # --- firing ----------------------------------------------------------------------------------------------------

    async def _act_when_due(self, group: TaskGroup) -> None:
        """The clock is asked at every tick: one that is set forward or back is simply believed."""
        while True:
            for cue_id in self._agenda.due(self._clock.now()):
                if cue_id not in self._acting:
                    self._acting.add(cue_id)
                    group.start_soon(self._act, cue_id)
                else:
                    self._agenda.look_at(cue_id, self._clock.now() + timedelta(seconds=TICK_S))
            await anyio.sleep(TICK_S)

    async def _act(self, cue_id: str) -> None:
        try:
            async with self._places:
                await self._look(cue_id)
        except Stale:
            self._agenda.look_at(cue_id, self._clock.now())
        except Unavailable as error:
            log.warning("cue_postponed", cue_id=cue_id, reason=error.code)
            self._agenda.look_at(cue_id, self._clock.now() + timedelta(seconds=1))
        except PostroomError as error:
            # A record nobody understands must not stop the others; the next scan looks at it again.
            log.exception("cue_unreadable", cue_id=cue_id, exc_info=error)
        finally:
            self._acting.discard(cue_id)

    async def _look(self, cue_id: str) -> None:
        held = await self._store.get(cue_id)
        if held is None:
            return
        now = self._clock.now()
        turn = await _turn(held.cue, now)
        if turn is None:
            # Afterwards: what could not be made now is looked at again when `_act` says, not at every tick.
            await self._make_what_is_open(held.cue, now)
            self._agenda.take_in(held.cue)
            return
        # A router that is told to end does first what it has decided; each step of it has a time of its own.
        with anyio.CancelScope(shield=True):
            await self._store.put(turn.cue, expected_seq=held.seq)
            self._agenda.take_in(turn.cue)
            await self._carry_out(turn)

    async def _carry_out(self, turn: Turn) -> None:
        try:
            for fire in turn.fires:
                await self._make(turn.cue, fire)
        finally:
            # What could not be made yet will be; nobody comes back to tell that it was decided.
            await self._tell_turn(turn)

    async def _make_what_is_open(self, cue: Cue, now: datetime) -> None:
        for fire in cue.open_fires:
            if fire.ulid in self._agenda.made or fire.decided_at + PATIENCE > now:
                continue
            if is_scheduled(fire) and await self._ledger.load(fire.ulid) is None:
                await self._make(cue, fire)
                continue
            # A fire on demand is noted behind its message: there is nothing to make.
            self._agenda.made.add(fire.ulid)
            await self._settle(cue.id, fire.ulid)

    async def _make(self, cue: Cue, fire: Fire) -> None:
        """Make the message of a fire; one that cannot be made has failed."""
        agent = await self._allowed(cue, cue.agent_id)
        if agent is None:
            await self._settle(cue.id, fire.ulid, self._refused("agent_not_found"))
            return
        sessions = await self._directory.live_sessions(agent.id)
        try:
            standing = await self._service.accept(scheduled_draft(cue, fire, agent, sessions))
        except Conflict as conflict:
            # The cue was changed between two routers' attempts: the message is there.
            if conflict.code != "idempotency_mismatch":
                await self._settle(cue.id, fire.ulid, self._refused(conflict.code))
                return
        except Rejected as refusal:
            await self._settle(cue.id, fire.ulid, self._refused(refusal.code))
            return
        else:
            log.info("cue_fired", cue_id=cue.id, message_id=standing.history.message.id, router=self._name)
            if standing.execution.is_open:
                self._agenda.made.add(fire.ulid)
                return
        self._agenda.made.add(fire.ulid)
        await self._settle(cue.id, fire.ulid)

    async def _allowed(self, cue: Cue, agent_id: str) -> Agent | None:
        """The agent, if the cue may still send to it."""
        agent = await self._directory.agent(agent_id)
        is_granted = agent is not None and (
            agent.owner == cue.owner or await self._store.is_granted(agent.owner, cue.owner)
        )
        return agent if may_receive(cue, agent, is_granted=is_granted) else None

    def _refused(self, code: str) -> End:
        return End(state="refused", is_success=False, at=self._clock.now(), error=code)

    # --- what a fire comes to --------------------------------------------------------------------------------------

    async def _settle_or_look_again(self, cue_id: str, ulid: str) -> None:
        try:
            await self._settle(cue_id, ulid)
        except Unavailable as error:
            log.warning("cue_settling_postponed", cue_id=cue_id, reason=error.code)
            self._agenda.made.discard(ulid)
            self._agenda.look_at(cue_id, self._clock.now() + timedelta(seconds=1))
        except PostroomError as error:
            log.exception("cue_not_settled", cue_id=cue_id, message_ulid=ulid, exc_info=error)

    async def _settle(self, cue_id: str, ulid: str, refused: End | None = None) -> None:
        """Note on the cue how a fire ended, if it has; whoever does so first tells of a failure."""
        for _ in range(ROUNDS):
            held = await self._store.get(cue_id)
            end = refused or await self._end(ulid)
            changed = cue_turns.settled(held.cue, ulid, end) if held and end else None
            if held is None or end is None or changed is None:
                if held is None or end is not None:
                    self._agenda.forget(ulid)
                return
            fire = next(each for each in held.cue.fires if each.ulid == ulid)
            if not end.is_success:
                # Before it is noted: a router that dies in between is followed by one that tells it again, once.
                await self._alert(held.cue, fire, end)
            try:
                await self._store.put(changed, expected_seq=held.seq)
            except Stale:
                continue
            self._agenda.take_in(changed)
            if not end.is_success:
                await self._tell(EventType.CUE_FAILED, changed, {**_of_fire(fire), "state": end.state})
            return
        raise Unavailable("contended", "Too many callers change this cue at once.")

    async def _end(self, ulid: str) -> End | None:
        history = await self._ledger.load(ulid)
        return cue_turns.end_of(fold(history), self._clock.now()) if history else None

    async def _alert(self, cue: Cue, fire: Fire, end: End) -> None:
        wanted = cue.on_failure
        for agent_id in filter(None, (wanted.agent_id, wanted.hook_agent_id)):
            agent = await self._allowed(cue, agent_id)
            if agent is None:
                log.warning("cue_alert_undeliverable", cue_id=cue.id, agent_id=agent_id)
                continue
            sessions = await self._directory.live_sessions(agent_id)
            await self._send_alert(alert_draft(cue, fire, end, agent, sessions), cue)

    async def _send_alert(self, draft: Draft, cue: Cue) -> None:
        try:
            await self._service.accept(draft)
        except Rejected as refusal:
            if refusal.code != "idempotency_mismatch":
                log.warning("cue_alert_refused", cue_id=cue.id, reason=refusal.code)

    # --- telling ---------------------------------------------------------------------------------------------------

    async def _tell_turn(self, turn: Turn) -> None:
        for fire in turn.fires:
            await self._tell(EventType.CUE_FIRED, turn.cue, _of_fire(fire))
        if turn.n_missed:
            newest = [instant(each) for each in turn.cue.missed[-turn.n_missed :]]
            await self._tell(EventType.CUE_MISSED, turn.cue, {"missed": turn.n_missed, "newest": newest})

    async def _tell(self, kind: EventType, cue: Cue, data: JsonObject) -> None:
        agent_id = cue.agent_id if cue.transport is Transport.AGENT else None
        event = TenantEvent(
            id=f"evt_{kind.value}_{cue.id}_{data.get('message_id') or instant(cue.last_fire_at)}",
            type=kind,
            owner=cue.owner,
            agent_id=agent_id,
            subject=cue.id,
            time=self._clock.now(),
            data={"cue_id": cue.id, "name": cue.name, "recipient_agent_id": agent_id, **data},
        )
        try:
            await self._events.publish(event)
        except Unavailable as error:
            log.warning("event_untold", event_type=kind.value, subject=cue.id, code=error.code)


async def _turn(cue: Cue, now: datetime) -> Turn | None:
    """What has come due. Ten thousand missed instants take a second to count: beside the loop, then."""
    if cue.next_fire_at is None or now - cue.next_fire_at <= LONG_MISSED:
        return cue_turns.turn(cue, now)
    return await to_thread.run_sync(cue_turns.turn, cue, now)


def _of_fire(fire: Fire) -> JsonObject:
    return {
        "message_id": ids.message_id(fire.ulid),
        "execution_id": ids.execution_id(fire.ulid),
        "scheduled_for": instant(fire.scheduled_for),
    }


async def _patiently(step: Callable[[], Awaitable[int | None]]) -> int:
    while True:
        try:
            return await step() or 0
        except Unavailable as error:
            log.warning("cues_interrupted", reason=error.code)
            await anyio.sleep(error.retry_after_s)
