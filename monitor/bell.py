"""A bell one side rings and the other waits for: many rings before a look are one."""

import anyio


class Bell:
    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a ring since the last wait, or for the time to pass; say whether it rang."""
        with anyio.move_on_after(timeout_s):
            await self._event.wait()
        rang = self._event.is_set()
        if rang:
            self._event = anyio.Event()
        return rang
