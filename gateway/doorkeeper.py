"""While this gateway can hear whoever beats, it says so every second; what was missed counts against nobody."""

from typing import Final

import anyio
import structlog

from contracts.errors import Unavailable
from gateway.ports import Beats, Probe

EVERY_S: Final = 1.0

log = structlog.get_logger()


class Doorkeeper:
    """Renews the mark by which the silence of sessions is told. Without the broker a caller may be nobody we know."""

    def __init__(self, *, beats: Beats, probe: Probe, every_s: float = EVERY_S) -> None:
        self._beats = beats
        self._probe = probe
        self._every_s = every_s

    async def run(self) -> None:
        """Renew until cancelled."""
        was_open = True
        while True:
            is_open = await self._renewed(was_open)
            was_open = is_open
            await anyio.sleep(self._every_s)

    async def _renewed(self, was_open: bool) -> bool:
        try:
            await self._probe.broker()
            await self._beats.renew_door()
        except Unavailable as error:
            if was_open:
                log.warning("beats_unheard", code=error.code)
            return False
        if not was_open:
            log.info("beats_heard_again")
        return True
