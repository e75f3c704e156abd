"""Signs of life as views need them: what the freshness store says, and nothing of anybody while it is away."""

from collections.abc import Sequence

import structlog

from contracts.errors import Unavailable
from contracts.freshness import NOTHING_KNOWN, Signs
from gateway.ports import Beats

log = structlog.get_logger()


async def known_signs(beats: Beats, names: Sequence[str]) -> Signs:
    if not names:
        return NOTHING_KNOWN
    try:
        return await beats.signs(names)
    except Unavailable as error:
        log.warning("freshness_unknown", code=error.code)
        return NOTHING_KNOWN
