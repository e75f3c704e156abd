"""The mark is renewed while broker and store answer, not while one of them does not, and again afterwards."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import anyio
import structlog

from contracts.errors import Unavailable
from contracts.freshness import NOTHING_KNOWN, Beat, Signs
from gateway.doorkeeper import Doorkeeper


class Neighbours:
    """A broker and a store that answer, or do not."""

    known = 0

    def __init__(self) -> None:
        self.away: set[str] = set()
        self.tries = 0
        self.renewed = 0

    async def broker(self) -> None:
        self.tries += 1
        self._answer("broker")

    async def store(self) -> None:
        self._answer("store")

    async def renew_door(self) -> None:
        self._answer("store")
        self.renewed += 1

    def _answer(self, who: str) -> None:
        if who in self.away:
            raise Unavailable(f"{who}_unavailable", "no answer")

    async def beat(self, seen: Mapping[str, datetime]) -> None:
        raise NotImplementedError

    async def beat_sessions(self, beats: Sequence[Beat]) -> Sequence[datetime | None]:
        raise NotImplementedError

    async def signs(self, names: Sequence[str]) -> Signs:
        return NOTHING_KNOWN

    async def last_seen(self, names: Sequence[str]) -> Sequence[datetime | None]:
        raise NotImplementedError

    async def forget(self, names: Sequence[str]) -> None:
        raise NotImplementedError


async def until(is_so: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not is_so():
            await anyio.sleep(0.001)


async def test_the_door_is_open_while_both_neighbours_answer_and_each_change_is_told_once() -> None:
    there = Neighbours()
    keeper = Doorkeeper(beats=there, probe=there, every_s=0.001)
    with structlog.testing.capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keeper.run)
            await until(lambda: there.renewed >= 3)
            for who in ("broker", "store"):
                there.away = {who}
                tried, renewed = there.tries, there.renewed
                await until(lambda: there.tries >= tried + 4)  # noqa: B023 - awaited in this round
                assert there.renewed <= renewed + 1
                there.away = set()
                await until(lambda: there.renewed >= renewed + 3)  # noqa: B023 - awaited in this round
            tasks.cancel_scope.cancel()
    assert [each["event"] for each in logs] == ["beats_unheard", "beats_heard_again"] * 2
