"""Echoes: whether pushes reach an agent's sessions, asked along the very way pushes take and answered over HTTPS.

    attach, beat or wish ─▶ noted as asked ─▶ published like a push ─▶ heard ─▶ POST /v1/hosts/echo ─▶ noted as answered

The questions ride on heartbeats: no loop of our own, nobody to be looked for. A host's beat asks for all its agents at
once, so that one call answers them all. Nothing waits for an answer; the router's gate `push_path` reads what is noted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import structlog

from contracts.clock import Clock, Ids
from contracts.errors import Unavailable
from contracts.freshness import asked_name, echo_name
from contracts.ids import echo_asked_at, echo_id
from contracts.records import Echo
from gateway.metrics import Metrics
from gateway.ports import Beats, EchoPushes
from router.gates import ECHO_BOUND_S, is_overdue, is_unanswered

SESSIONS_WAIT: Final = 2
"""How many periods a session's beat leaves to its host's beat, which asks for all agents of the host together."""
RANDOM_BYTES: Final = 10
NEVER: Final = datetime.fromtimestamp(0, UTC)
TOLD_OF: Final = 10

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoSettings:
    """How often is asked, and how long an answer may take."""

    every_s: int = 20
    """Below the 30 s of a monitor's beat, so that each of a host's beats asks."""
    bound_s: int = ECHO_BOUND_S


class _Arrival(NamedTuple):
    """An echo that somebody heard."""

    agent_id: str
    asked_at: datetime


class _Noted(NamedTuple):
    """What is noted of an agent's echoes."""

    asked_at: datetime | None
    answered_at: datetime | None

    @property
    def is_unanswered(self) -> bool:
        return is_unanswered(self.asked_at, self.answered_at)

    def is_due(self, now: datetime, every: timedelta) -> bool:
        """An unanswered one is due at each beat: what it went by may work again."""
        return self.asked_at is None or self.is_unanswered or now - self.asked_at >= every


class Echoes:
    """Asks, and notes the answers."""

    def __init__(
        self,
        *,
        settings: EchoSettings,
        beats: Beats,
        pushes: EchoPushes,
        metrics: Metrics,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._every = timedelta(seconds=settings.every_s)
        self._bound_s = settings.bound_s
        self._beats = beats
        self._pushes = pushes
        self._metrics = metrics
        self._clock = clock
        self._ids = ids

    async def begin(self, agent_id: str) -> None:
        """Ask for a session that was just attached: what an earlier one left unanswered says nothing of it."""
        try:
            await self._put([agent_id], anew=[agent_id])
        except Unavailable as error:
            log.warning("echoes_not_asked", agents=1, code=error.code)

    async def keep_up_session(self, agent_id: str) -> None:
        """Ask at a session's beat, where no host's beat has asked for a while."""
        await self._keep_up([agent_id], self._every * SESSIONS_WAIT)

    async def keep_up_host(self, agent_ids: Sequence[str]) -> None:
        """Ask at a host's beat for those of its agents whose last echo is a while ago or unanswered."""
        await self._keep_up(agent_ids, self._every)

    async def ask(self, agent_ids: Sequence[str]) -> Sequence[str]:
        """Ask now; returns for whom it could be published. Raises `Unavailable` when the store is away.

        An earlier question that is unanswered keeps its time: asking again proves nothing.
        """
        noted = await self._noted(agent_ids)
        return await self._put(agent_ids, anew=[each for each in agent_ids if not noted[each].is_unanswered])

    async def answer(self, heard: Sequence[tuple[str, str]]) -> Sequence[bool]:
        """Note which agents' echoes arrived; False for one so late that it says nothing good of the way."""
        now = self._clock.now()
        arrivals = [_Arrival(agent_id, echo_asked_at(echo) or NEVER) for agent_id, echo in heard]
        counted = [self._counts(each, now) for each in arrivals]
        in_time = [each for each, counts in zip(arrivals, counted, strict=True) if counts]
        # Never before its question, whichever gateway's clock that was read from.
        if answered := {echo_name(each.agent_id): max(now, each.asked_at) for each in in_time}:
            await self._beats.beat(answered)
        self._metrics.echoes_late(len(arrivals) - len(in_time))
        for each in in_time:
            self._metrics.echo_answered(max(0.0, (now - each.asked_at).total_seconds()))
        return counted

    def _counts(self, arrival: "_Arrival", now: datetime) -> bool:
        return abs((now - arrival.asked_at).total_seconds()) <= self._bound_s

    async def _keep_up(self, agent_ids: Sequence[str], every: timedelta) -> None:
        """Never raises: whoever beats has nothing to do with a question that could not be asked; the next beat asks."""
        try:
            noted = await self._noted(agent_ids)
            now = self._clock.now()
            self._tell_overdue([each for each in agent_ids if self._is_overdue(noted[each], now)])
            due = [each for each in agent_ids if noted[each].is_due(now, every)]
            await self._put(due, anew=[each for each in due if not noted[each].is_unanswered])
        except Unavailable as error:
            log.warning("echoes_not_asked", agents=len(agent_ids), code=error.code)

    async def _put(self, agent_ids: Sequence[str], *, anew: Sequence[str]) -> Sequence[str]:
        """Publish a question for each agent, and count the time of `anew` from now on."""
        now = self._clock.now()
        if anew:
            # Noted first: the answer may be faster than the note.
            await self._beats.beat({asked_name(each): now for each in anew})
        asked = [each for each in agent_ids if await self._pushes.ask(self._question(each, now))]
        self._metrics.echoes_asked(len(asked))
        # Nobody can answer what was never said.
        await self._beats.forget([asked_name(each) for each in set(anew).difference(asked)])
        return asked

    def _question(self, agent_id: str, now: datetime) -> Echo:
        return Echo(agent_id=agent_id, echo_id=echo_id(now, self._ids.secret(RANDOM_BYTES)))

    async def _noted(self, agent_ids: Sequence[str]) -> Mapping[str, _Noted]:
        names = [*map(asked_name, agent_ids), *map(echo_name, agent_ids)]
        seen = await self._beats.last_seen(names)
        half = len(agent_ids)
        return {
            agent_id: _Noted(asked_at, answered_at)
            for agent_id, asked_at, answered_at in zip(agent_ids, seen[:half], seen[half:], strict=True)
        }

    def _is_overdue(self, noted: _Noted, now: datetime) -> bool:
        return is_overdue(*noted, now, bound_s=self._bound_s)

    def _tell_overdue(self, agent_ids: Sequence[str]) -> None:
        if agent_ids:
            self._metrics.echoes_overdue(len(agent_ids))
            log.warning("agents_unreachable", agents=len(agent_ids), agent_ids=agent_ids[:TOLD_OF])
