"""When a session folder is attached, beaten for and detached. Pure.

attached   folder            last report                                  action
no         fresh             -                                            attach
no         stale or absent   -                                            nothing
yes        absent            -                                            detach
yes        fresh             said stale                                   beat
yes        fresh             older touch, at least the gap ago            beat
yes        stale             said fresh                                   beat (with the true age)
yes        any               at least `beat_every_s` ago                  beat
yes        any               otherwise                                    nothing

The gap is `gap_s`, or `carried_gap_s` while the broker carries beats: then a touch is told that way.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from monitor.heartbeat import Beat

TOKEN_RANDOM_BYTES: Final = 20
"""160 random bits beside the ULID, which names the attach and is guessable to a neighbour."""


class Action(StrEnum):
    NOTHING = "nothing"
    ATTACH = "attach"
    BEAT = "beat"
    DETACH = "detach"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What the gateway was last told about an attached session."""

    at: datetime
    beat: Beat


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often a session is reported: regularly, and after a touch, but not more often than the gap."""

    beat_every_s: float
    gap_s: float = 5.0
    carried_gap_s: float = 5.0


def next_action(
    reported: Reported | None, beat: Beat | None, now: datetime, pace: Pace, *, is_carried: bool = False
) -> Action:
    """The one thing to do about a folder. `reported` None: not attached. `beat` None: the folder is gone."""
    if reported is None:
        return Action.ATTACH if beat is not None and beat.is_fresh else Action.NOTHING
    if beat is None:
        return Action.DETACH
    gap_s = pace.carried_gap_s if is_carried else pace.gap_s
    return Action.BEAT if _beat_is_due(reported, beat, now, pace.beat_every_s, gap_s) else Action.NOTHING


def _beat_is_due(reported: Reported, beat: Beat, now: datetime, beat_every_s: float, gap_s: float) -> bool:
    since_s = (now - reported.at).total_seconds()
    if since_s < 0:
        # The host's clock was set back: what we noted about time means nothing any more.
        return True
    if beat.is_fresh != reported.beat.is_fresh or since_s >= beat_every_s:
        return True
    return beat.is_fresh and beat.touched_at != reported.beat.touched_at and since_s >= gap_s


def session_token(ulid: str, secret: bytes) -> str:
    """The token of one attach: a ULID to tell attaches apart, and randomness to prove them with."""
    return f"{ulid}_{secret.hex()}"
