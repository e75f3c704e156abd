"""Heartbeats in Redis: one sorted set, member = session id, `host:<agent id>` …, score = epoch milliseconds.

Those who ask while a question is under way share the next one, so 64 callers cost a few round trips and not 64.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio

from contracts.clock import Clock
from contracts.errors import Unavailable
from contracts.freshness import ASKED, ECHO, HOST, asked_name, echo_name, host_name
from contracts.records import LiveSession, Reachability, SessionFact
from infra.redis_connection import Argument, RedisConnection

BEATS_KEY: Final = "beats"
KEPT_FOR: Final = timedelta(hours=24)
TRIM_EVERY: Final = timedelta(minutes=1)
REMEMBERED_FOR_S: Final = 0.1
REMEMBERED_NAMES: Final = 20_000
NAMES_PER_COMMAND: Final = 1_000
ABSENCE_REMEMBERED: Final = (HOST, ECHO, ASKED)
EPOCH: Final = datetime.fromtimestamp(0, UTC)
MILLISECOND: Final = timedelta(milliseconds=1)

Seen = Mapping[str, datetime | None]


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
    """The gateway's `Beats` and the router's `Freshness`."""

    def __init__(self, connection: RedisConnection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._key = connection.key(BEATS_KEY)
        self._trimmed_at = EPOCH
        self._next_round = _Round()
        self._one_at_a_time = anyio.Lock()
        self._remembered: dict[str, datetime | None] = {}
        self._remembered_at = 0.0
        self._writes = 0

    async def beat(self, seen: Mapping[str, datetime]) -> None:
        names = list(seen)
        for start in range(0, len(names), NAMES_PER_COMMAND):
            part = names[start : start + NAMES_PER_COMMAND]
            await self._write(part, "ZADD", [word for name in part for word in (_milliseconds(seen[name]), name)])
        await self._trim()

    async def forget(self, names: Sequence[str]) -> None:
        if names:
            await self._write(names, "ZREM", names)

    async def last_seen(self, names: Sequence[str]) -> Sequence[datetime | None]:
        if not names:
            return []
        seen = await self._ask_together(names)
        return [seen[name] for name in names]

    async def reachability(self, agent_id: str, sessions: Sequence[LiveSession]) -> Reachability:
        host, asked, answered = host_name(agent_id), asked_name(agent_id), echo_name(agent_id)
        names = [*(session.id for session in sessions), host]
        if any(session.echoes for session in sessions):
            names += [asked, answered]
        try:
            seen = self._recall(names) or await self._ask_together(names)
        except Unavailable:
            return Reachability(sessions=_facts(sessions, {}), known=False)
        return Reachability(
            sessions=_facts(sessions, seen),
            host_last_seen_at=seen[host],
            echo_asked_at=seen.get(asked),
            echo_answered_at=seen.get(answered),
        )

    async def _write(self, names: Sequence[str], command: str, args: Sequence[Argument]) -> None:
        try:
            await self._connection.command(command, self._key, *args)
        finally:
            # Also after a timeout: it may have been carried out. Counted for the questions that are under way.
            self._writes += 1
            for name in names:
                self._remembered.pop(name, None)

    async def _trim(self) -> None:
        now = self._clock.now()
        if now - self._trimmed_at < TRIM_EVERY:
            return
        self._trimmed_at = now
        await self._write((), "ZREMRANGEBYSCORE", ["-inf", f"({_milliseconds(now - KEPT_FOR)}"])

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
        seen = {name: _instant(score) for name, score in zip(names, scores, strict=True)}
        if writes == self._writes:
            self._remember(seen, asked_at)
        return seen

    def _remember(self, seen: Seen, asked_at: float) -> None:
        if asked_at - self._remembered_at > REMEMBERED_FOR_S or len(self._remembered) > REMEMBERED_NAMES:
            self._remembered.clear()
            self._remembered_at = asked_at
        for name, instant in seen.items():
            # "Never seen" is not remembered of a session: another program may have heard of it just now, and the
            # difference sends its message elsewhere. For a host the difference is only what the trace says, and an
            # echo nobody asked a moment ago is not overdue now.
            if instant is not None or name.startswith(ABSENCE_REMEMBERED):
                self._remembered[name] = instant

    def _recall(self, names: Sequence[str]) -> Seen | None:
        if anyio.current_time() - self._remembered_at > REMEMBERED_FOR_S:
            return None
        remembered = self._remembered
        return {name: remembered[name] for name in names} if all(name in remembered for name in names) else None


def _again(error: Unavailable) -> Unavailable:
    """A fresh error for each who waited: one instance raised in many tasks would mix their tracebacks."""
    return Unavailable(error.code, error.message, retry_after_s=error.retry_after_s)


def _facts(sessions: Sequence[LiveSession], seen: Seen) -> tuple[SessionFact, ...]:
    return tuple(
        SessionFact(
            id=session.id,
            label=session.label,
            is_default=session.is_default,
            last_seen_at=seen.get(session.id),
            echoes=session.echoes,
        )
        for session in sessions
    )


def _milliseconds(at: datetime) -> int:
    return (at - EPOCH) // MILLISECOND


def _instant(score: float | bytes | None) -> datetime | None:
    return None if score is None else EPOCH + int(float(score)) * MILLISECOND
