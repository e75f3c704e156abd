"""The guards' budgets in Redis: one script for all messages that ask at the same time, all of a message's or none.

Those who ask while a question is under way share the next one. The layout is in `infra/lua/guard_ask.lua`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import anyio
import structlog

from contracts.errors import Unavailable
from contracts.words import Gate
from gateway.ports import OpenGuard
from infra.redis_connection import Argument, RedisConnection, load_script
from router.ports import Budget, BudgetFact

ASK: Final = load_script("guard_ask")
CLOSE: Final = load_script("guard_close")
KEPT_OPEN_S: Final = 600
"""How long an open guard that nobody tries is remembered; then it is closed and full."""
ASKED_TOGETHER: Final = 128
"""Messages per script call: about a millisecond in which the server does nothing else."""
MAX_LISTED: Final = 1_000
EPOCH: Final = datetime.fromtimestamp(0, UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
PASS, PROBE, REFUSED, OPENED = 0, 1, 2, 3
log = structlog.get_logger()

Asked = tuple[Sequence[Budget], bool]


class _Round:
    """The messages of one round trip, and what came of it: numbers, an error, or neither: its leader was cancelled."""

    __slots__ = ("answers", "asked", "done", "is_away", "led")

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.led = False
        self.done = anyio.Event()
        self.answers: list[tuple[BudgetFact, ...]] | None = None
        self.is_away = False


class RedisGuards:
    """The router's `Budgets` and the gateway's `GuardBook`."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._next_round = _Round()
        self._one_at_a_time = anyio.Lock()

    async def ask(self, budgets: Sequence[Budget], *, spend: bool) -> tuple[BudgetFact, ...] | None:
        while True:
            asked = self._next_round
            if len(asked.asked) >= ASKED_TOGETHER:
                await asked.done.wait()
                continue
            place = len(asked.asked)
            asked.asked.append((budgets, spend))
            if asked.led:
                await asked.done.wait()
            else:
                await self._lead(asked)
            if asked.answers is not None:
                return asked.answers[place]
            if asked.is_away:
                return None

    async def close(self, budgets: Sequence[Budget]) -> None:
        try:
            await self._run(CLOSE, [word for each in budgets for word in (each.owner, member_of(each))])
        except Unavailable as error:
            log.warning("guard_left_open", code=error.code)

    async def open_of(self, owner: str, now: datetime) -> list[OpenGuard]:
        since = _milliseconds(now) - KEPT_OPEN_S * 1000
        found = await self._connection.command(
            "ZRANGEBYSCORE", self._index(owner), since, "+inf", "WITHSCORES", "LIMIT", 0, MAX_LISTED
        )
        pairs = zip(islice(found, 0, None, 2), islice(found, 1, None, 2), strict=True)
        return [_open_guard(member.decode(), score) for member, score in pairs]

    async def reset(self, owner: str, guards: Sequence[OpenGuard]) -> None:
        if not guards:
            return
        members = [member_of(each) for each in guards]
        await self._connection.command("DEL", *(self._connection.key(f"guard:{owner}:{each}") for each in members))
        await self._connection.command("ZREM", self._index(owner), *members)

    async def is_first(self, owner: str, gate: Gate, thread: str, *, within_s: int) -> bool:
        key = self._connection.key(f"guard:told:{owner}:{gate.value}:{thread}")
        return await self._connection.command("SET", key, 1, "NX", "EX", within_s) is not None

    async def _lead(self, led: _Round) -> None:
        """Put the round's question once the one before is answered; whoever comes until then joins it."""
        led.led = True
        try:
            async with self._one_at_a_time:
                self._next_round = _Round()
                led.answers = await self._ask(led.asked)
        except Unavailable:
            led.is_away = True
        finally:
            if self._next_round is led:
                self._next_round = _Round()
            led.done.set()

    async def _ask(self, asked: Sequence[Asked]) -> list[tuple[BudgetFact, ...]]:
        words: list[Argument] = [KEPT_OPEN_S * 1000]
        for budgets, spend in asked:
            words += [int(spend), len(budgets)]
            for each in budgets:
                words += [each.owner, member_of(each), each.limit, round(each.window_s * 1000)]
                words.append(each.cool_down_s * 1000)
        numbers = iter(await self._run(ASK, words))
        return [tuple(_fact(*islice(numbers, 3)) for _ in budgets) for budgets, _ in asked]

    async def _run(self, script: Any, words: Sequence[Argument]) -> Any:
        return await self._connection.run(script, [], [self._connection.prefix, *words])

    def _index(self, owner: str) -> str:
        return self._connection.key(f"guard:open:{owner}")


def member_of(guard: Budget | OpenGuard) -> str:
    """What a guard is called among those of its owner."""
    return f"{guard.gate.value} {guard.sender or '-'} {guard.recipient or '-'} {guard.thread or '-'}"


def _open_guard(member: str, score: bytes) -> OpenGuard:
    gate, *names = member.split(" ")
    sender, recipient, thread = (None if name == "-" else name for name in names)
    retry_at = EPOCH + int(float(score)) * MILLISECOND
    return OpenGuard(gate=Gate(gate), sender=sender, recipient=recipient, thread=thread, retry_at=retry_at)


def _fact(verdict: int, remaining: int, retry_ms: int) -> BudgetFact:
    return BudgetFact(
        admits=verdict in (PASS, PROBE),
        has_opened=verdict == OPENED,
        is_probe=verdict == PROBE,
        remaining=remaining,
        retry_after_s=retry_ms / 1000,
    )


def _milliseconds(at: datetime) -> int:
    return (at - EPOCH) // MILLISECOND
