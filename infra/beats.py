"""Heartbeats in Redis: one sorted set, member = session id, `host:<agent id>` …, score = epoch milliseconds.

Those who ask while a question is under way share the next one, so 64 callers cost a few round trips and not 64. The
marks of outages lie in the same set and are asked with whatever is asked. Whether a session's beat comes too late is
decided where it is written, by a script.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio

from contracts.clock import Clock
from contracts.errors import Unavailable
from contracts.freshness import (
    ASKED,
    DOOR,
    DOOR_NAMES,
    ECHO,
    HOST,
    LONG_AGO,
    NO_TIME,
    Beat,
    GoneSince,
    Signs,
    asked_name,
    echo_name,
    host_name,
    is_past_deadline,
    signs_of,
)
from contracts.records import LiveSession, Reachability, SessionFact
from infra.redis_connection import Argument, RedisConnection, Script, load_script
from infra.store_clock import StoreClock

BEATS_KEY: Final = "beats"
SESSION_BEATS: Final = load_script("session_beats")
RENEW_DOOR: Final = load_script("renew_door")
LEAST_BETWEEN_WRITES: Final = timedelta(seconds=1)
LONGEST_GAP: Final = timedelta(seconds=10)
"""Several renewals of the mark may fail before it is told as an outage."""
KEPT_FOR: Final = timedelta(hours=24)
TRIM_EVERY: Final = timedelta(minutes=1)
REMEMBERED_FOR_S: Final = 0.1
REMEMBERED_NAMES: Final = 20_000
NAMES_PER_COMMAND: Final = 1_000
ABSENCE_REMEMBERED: Final = (HOST, ECHO, ASKED)
EPOCH: Final = datetime.fromtimestamp(0, UTC)
NEVER: Final = datetime.max.replace(tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)

Seen = Mapping[str, datetime | None]
Reached = tuple[tuple[LiveSession, ...], Reachability | None]
NOT_REACHED: Final[Reached] = ((), None)


class _Round:
    """The names of one round trip, and what came of it: an answer, an error, or neither: its leader was cancelled."""

    __slots__ = ("answer", "done", "error", "led", "names")

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.led = False
        self.done = anyio.Event()
        self.answer: Seen | None = None
        self.error: Unavailable | None = None


class RedisBeats:
    """The gateway's `Beats` and the router's `Freshness`. `known` is how many names were known at the last beat.

    Callers' instants are by `clock`; those in Redis are by `store_clock`, so that programs whose clocks differ agree.
    """

    def __init__(self, connection: RedisConnection, clock: Clock, store_clock: StoreClock | None = None) -> None:
        self._connection = connection
        self._clock = clock
        self._store_clock = store_clock
        self._key = connection.key(BEATS_KEY)
        self._trimmed_at = EPOCH
        self._next_round = _Round()
        self._one_at_a_time = anyio.Lock()
        self._remembered: dict[str, datetime | None] = {}
        self._remembered_at = 0.0
        self._reaches: dict[str, Reached] = {}
        self._reached_by: dict[str, str] = {}
        self._marks: Signs | None = None
        self._writes = 0
        self.known = 0

    async def beat(self, seen: Mapping[str, datetime]) -> None:
        names, ahead = list(seen), self._ahead()
        for start in range(0, len(names), NAMES_PER_COMMAND):
            part = names[start : start + NAMES_PER_COMMAND]
            scored = [word for name in part for word in (_milliseconds(seen[name] + ahead), name)]
            await self._write(part, "ZADD", scored)
        await self._trim()

    async def beat_sessions(self, beats: Sequence[Beat]) -> Sequence[datetime | None]:
        heard: list[datetime | None] = []
        for start in range(0, len(beats), NAMES_PER_COMMAND):
            part = beats[start : start + NAMES_PER_COMMAND]
            self.known, *instants = await self._script(
                SESSION_BEATS, [each.session_id for each in part], self._said(part)
            )
            heard += self._read(instants)
        await self._trim()
        return heard

    async def renew_door(self) -> None:
        await self._script(RENEW_DOOR, DOOR_NAMES, [_in_ms(LONGEST_GAP), *DOOR_NAMES])

    async def forget(self, names: Sequence[str]) -> None:
        if names:
            await self._write(names, "ZREM", names)

    async def last_seen(self, names: Sequence[str]) -> Sequence[datetime | None]:
        if not names:
            return []
        seen = await self._ask_together(names)
        return [seen[name] for name in names]

    async def signs(self, names: Sequence[str]) -> Signs:
        return self._signs(await self._ask_together([*names, *DOOR_NAMES]))

    async def reachability(self, agent_id: str, sessions: Sequence[LiveSession]) -> Reachability:
        if (known := self._known_reach(agent_id, sessions)) is not None:
            return known
        names = _names_of(agent_id, sessions)
        try:
            seen = self._recall(names) or await self._ask_together([*names, *DOOR_NAMES])
        except Unavailable:
            return _unknown(sessions)
        reach = self._reached(agent_id, sessions, seen)
        self._keep_reach(agent_id, sessions, names, reach)
        return reach

    async def reachabilities(
        self, sessions: Mapping[str, Sequence[LiveSession]]
    ) -> tuple[Mapping[str, Reachability], Signs | None]:
        names = [name for agent_id, each in sessions.items() for name in _names_of(agent_id, each)]
        try:
            seen = await self._ask_together([*names, *DOOR_NAMES])
        except Unavailable:
            return {agent_id: _unknown(_live(each)) for agent_id, each in sessions.items()}, None
        reached = {agent_id: self._reached(agent_id, _live(each), seen) for agent_id, each in sessions.items()}
        return reached, self._signs(seen)

    def _reached(self, agent_id: str, sessions: Sequence[LiveSession], seen: Seen) -> Reachability:
        now, signs, host_seen_at = self._clock.now(), self._signs(seen), seen[host_name(agent_id)]
        return Reachability(
            sessions=tuple(signs.fact_of(each, now) for each in sessions if not is_past_deadline(each, signs)),
            host_last_seen_at=host_seen_at and signs.counted_at(host_seen_at, now),
            echo_asked_at=seen.get(asked_name(agent_id)),
            echo_answered_at=seen.get(echo_name(agent_id)),
        )

    def _signs(self, seen: Seen) -> Signs:
        """What was asked of the marks with these, or is remembered of them."""
        now, marks = self._clock.now(), self._marks
        if DOOR in seen or marks is None:
            return signs_of(seen, now)
        return Signs(as_of=min(marks.as_of, now), heard=seen, outages=marks.outages)

    async def _script(self, script: Script, names: Sequence[str], args: Sequence[Argument]) -> Sequence[Any]:
        try:
            now_ms = _milliseconds(self._clock.now() + self._ahead())
            answer: Sequence[Any] = await self._connection.run(script, [self._key], [now_ms, *args])
            return answer
        finally:
            self._note_write(names)

    async def _write(self, names: Sequence[str], command: str, args: Sequence[Argument]) -> None:
        try:
            await self._connection.command(command, self._key, *args)
        finally:
            self._note_write(names)

    def _note_write(self, names: Sequence[str]) -> None:
        """Also after a timeout: it may have been carried out. Counted for the questions that are under way."""
        self._writes += 1
        for name in names:
            self._remembered.pop(name, None)
            self._reaches.pop(self._reached_by.pop(name, ""), None)
        if DOOR in names:
            self._forget_reaches()
            self._marks = None

    async def _trim(self) -> None:
        """Drop what was heard of more than a day ago, the time of an outage not counted."""
        now = self._clock.now()
        if now - self._trimmed_at < TRIM_EVERY:
            return
        self._trimmed_at = now
        if (oldest := _oldest_kept(await self.signs(()))) > LONG_AGO:
            oldest_ms = _milliseconds(oldest + self._ahead())
            await self._write((), "ZREMRANGEBYSCORE", [f"({-oldest_ms}", f"({oldest_ms}"])

    async def _ask_together(self, names: Sequence[str]) -> Seen:
        while True:
            asked = self._next_round
            asked.names.update(dict.fromkeys(names))
            if asked.led:
                await asked.done.wait()
            else:
                await self._lead(asked)
            if asked.answer is not None:
                return asked.answer
            if asked.error is not None:
                raise _again(asked.error) from asked.error

    async def _lead(self, led: _Round) -> None:
        """Put the round's question once the one before is answered; whoever comes until then joins it."""
        led.led = True
        try:
            async with self._one_at_a_time:
                self._next_round = _Round()
                led.answer = await self._ask(list(led.names))
        except Unavailable as error:
            led.error = error
        finally:
            if self._next_round is led:
                self._next_round = _Round()
            led.done.set()

    async def _ask(self, names: Sequence[str]) -> Seen:
        writes = self._writes
        asked_at = anyio.current_time()
        scores = await self._connection.command("ZMSCORE", self._key, *names)
        seen = dict(zip(names, self._read(scores), strict=True))
        if writes == self._writes:
            self._remember(seen, asked_at)
        return seen

    def _said(self, beats: Sequence[Beat]) -> list[Argument]:
        said: list[Argument] = [_in_ms(LEAST_BETWEEN_WRITES), len(DOOR_NAMES), *DOOR_NAMES]
        ahead = self._ahead()
        for each in beats:
            seen_ms, attached_ms = _milliseconds(each.seen_at + ahead), _milliseconds(each.attached_at + ahead)
            said += [each.session_id, seen_ms, attached_ms, _in_ms(each.terminal)]
        return said

    def _ahead(self) -> timedelta:
        """By how much Redis' clock is ahead of the callers'."""
        return self._store_clock.ahead() if self._store_clock else NO_TIME

    def _read(self, scores: Sequence[float | bytes | None]) -> list[datetime | None]:
        """What is kept, in callers' instants."""
        ahead = self._ahead()
        return [_instant(score, ahead) for score in scores]

    def _remember(self, seen: Seen, asked_at: float) -> None:
        if asked_at - self._remembered_at > REMEMBERED_FOR_S or len(self._remembered) > REMEMBERED_NAMES:
            self._remembered.clear()
            self._forget_reaches()
            self._remembered_at, self._marks = asked_at, None
        if DOOR in seen:
            self._marks = signs_of(seen, NEVER)
        for name, instant in seen.items():
            # "Never seen" is not remembered of a session: another program may have heard of it just now, and the
            # difference sends its message elsewhere. For a host the difference is only what the trace says, and an
            # echo nobody asked a moment ago is not overdue now.
            if instant is not None or name.startswith(ABSENCE_REMEMBERED):
                self._remembered[name] = instant

    def _recall(self, names: Sequence[str]) -> Seen | None:
        remembered = self._remembered
        if not self._is_remembering() or not all(name in remembered for name in names):
            return None
        return {name: remembered[name] for name in names}

    def _is_remembering(self) -> bool:
        return self._marks is not None and anyio.current_time() - self._remembered_at <= REMEMBERED_FOR_S

    def _known_reach(self, agent_id: str, sessions: Sequence[LiveSession]) -> Reachability | None:
        """What was made of what is remembered."""
        reach_of, reach = self._reaches.get(agent_id, NOT_REACHED)
        return reach if reach is not None and reach_of == tuple(sessions) and self._is_remembering() else None

    def _keep_reach(
        self, agent_id: str, sessions: Sequence[LiveSession], names: Sequence[str], reach: Reachability
    ) -> None:
        if self._recall(names) is not None:
            self._reaches[agent_id] = (tuple(sessions), reach)
            self._reached_by.update(dict.fromkeys(names, agent_id))

    def _forget_reaches(self) -> None:
        self._reaches.clear()
        self._reached_by.clear()


def _again(error: Unavailable) -> Unavailable:
    """A fresh error for each who waited: one instance raised in many tasks would mix their tracebacks."""
    return Unavailable(error.code, error.message, retry_after_s=error.retry_after_s)


def _oldest_kept(signs: Signs) -> datetime:
    if signs.as_of - LONG_AGO < KEPT_FOR:
        return LONG_AGO
    oldest = signs.as_of - KEPT_FOR
    lost = sum((each.ends_at - each.begins_at for each in signs.outages if each.ends_at > oldest), NO_TIME)
    return oldest - min(lost, oldest - LONG_AGO)


def _names_of(agent_id: str, sessions: Sequence[LiveSession]) -> list[str]:
    """What has to be known to say how an agent can be reached."""
    names = [*(session.id for session in sessions), host_name(agent_id)]
    if any(session.echoes for session in sessions):
        names += [asked_name(agent_id), echo_name(agent_id)]
    return names


def _live(sessions: Sequence[LiveSession]) -> Sequence[LiveSession]:
    return [session for session in sessions if session.is_live]


def _unknown(sessions: Sequence[LiveSession]) -> Reachability:
    facts = (
        SessionFact(id=each.id, label=each.label, is_default=each.is_default, last_seen_at=None, echoes=each.echoes)
        for each in sessions
    )
    return Reachability(sessions=tuple(facts), known=False)


def _milliseconds(at: datetime) -> int:
    return (at - EPOCH) // MILLISECOND


def _in_ms(duration: timedelta) -> int:
    return duration // MILLISECOND


def _instant(score: float | bytes | None, ahead: timedelta) -> datetime | None:
    """A negative score is one that `infra/lua/sessions_gone.lua` made."""
    if score is None:
        return None
    milliseconds = int(float(score))
    kind = GoneSince if milliseconds < 0 else datetime
    return kind.fromtimestamp(0, UTC) + (abs(milliseconds) * MILLISECOND - ahead)
