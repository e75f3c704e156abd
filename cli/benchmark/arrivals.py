"""Sendings joined with what arrived elsewhere, whichever of the two is known first."""

import anyio

from cli.benchmark.tally import Tally


class Arrivals:
    """Latencies from the instant a message was due to the instant its counterpart arrived, joined by an id."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._due_s: dict[str, float] = {}
        self._arrived_s: dict[str, float] = {}
        self.tally = Tally()
        self.complete = anyio.Event()

    def sent(self, key: str, due_s: float) -> None:
        self._due_s[key] = due_s
        self._join(key)

    def arrived(self, key: str, at_s: float) -> None:
        """Note the first arrival; a repetition changes nothing."""
        if key not in self._arrived_s:
            self._arrived_s[key] = at_s
            self._join(key)

    def _join(self, key: str) -> None:
        if key in self._due_s and key in self._arrived_s:
            self.tally.settle(self._arrived_s[key] - self._due_s[key], None)
            self._left -= 1
            if not self._left:
                self.complete.set()

    async def wait(self, timeout_s: float, fault: str) -> None:
        """Wait until all have arrived; count the ones that have not within `timeout_s` as `fault`."""
        with anyio.move_on_after(timeout_s):
            await self.complete.wait()
        self.tally.fail(fault, self._left)
