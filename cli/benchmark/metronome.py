"""Beats at exact instants. Event loops round their timers to whole milliseconds, as long as a whole answer takes."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio import to_thread

LEAD_S: Final = 0.02
"""Between the start and the first beat, so that the first is as punctual as the rest."""


class Metronome:
    """`count` beats, `1 / rate` seconds apart; beat n belongs at `due_s(n)` of `time.perf_counter`."""

    def __init__(self, rate: float, count: int) -> None:
        self._rate = rate
        self._count = count
        self._stopped = threading.Event()
        self.start_s = time.perf_counter() + LEAD_S

    def due_s(self, number: int) -> float:
        return self.start_s + number / self._rate

    def stop(self) -> None:
        self._stopped.set()

    def run(self, loop: asyncio.AbstractEventLoop, beat: Callable[[int], None]) -> None:
        """Call `beat(n)` on `loop` at each instant; runs in a thread of its own, whose sleep is exact."""
        for number in range(self._count):
            wait_s = self.due_s(number) - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            if self._stopped.is_set():
                return
            loop.call_soon_threadsafe(beat, number)


@asynccontextmanager
async def beating(rate: float, count: int, beat: Callable[[Metronome, int], None]) -> AsyncIterator[Metronome]:
    """Call `beat(metronome, n)` on this loop `count` times at `rate` a second, while the block runs."""
    loop = asyncio.get_running_loop()
    metronome = Metronome(rate, count)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(to_thread.run_sync, metronome.run, loop, lambda number: beat(metronome, number))
        try:
            yield metronome
        finally:
            metronome.stop()
