"""What becomes of a cue: when its time has come, when a fire has ended. Pure.

instants due ──▶ fired: the newest, all of them or those in time │ missed: counted, the newest of them named
fire ended   ──▶ succeeded │ failed ──▶ paused, where the cue says so
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from contracts.cues import Cue, CueStatus, Fire, Misfire, fire_ulid
from router.cue_schedule import DueInstants, due_instants, next_instant
from router.execution import Execution

IN_TIME_S: Final = 60
"""An instant not older than this is fired whatever the policy: a router that restarts has missed nothing."""
MAX_AT_ONCE: Final = 20
MAX_FIRES: Final = 30
"""Fires a cue remembers; of more that are open at once the oldest are followed no further."""
MAX_MISSED: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A cue whose time has come: as it is from now on, what it fires, and how many instants it missed."""

    cue: Cue
    fires: tuple[Fire, ...]
    n_missed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a fire ended. `state` is its execution's, or `refused` where there never was one."""

    state: str
    is_success: bool
    at: datetime
    error: str | None = None


def turn(cue: Cue, now: datetime) -> Turn | None:
    """What has come due; None when nothing has.

    What was the next instant is never looked at again, so a clock that is set back finds nothing to fire twice.
    """
    if cue.status is not CueStatus.ACTIVE or cue.next_fire_at is None or cue.next_fire_at > now:
        return None
    due = due_instants(cue.schedule, cue.next_fire_at, now, keep=MAX_AT_ONCE)
    fired = _fired(cue, due, now)
    fires = tuple(Fire(ulid=fire_ulid(cue.owner, cue.id, each), scheduled_for=each, decided_at=now) for each in fired)
    following = next_instant(cue.schedule, now)
    n_missed = due.count - len(fired)
    changed = replace(
        with_fires(cue, fires),
        status=cue.status if following else CueStatus.ENDED,
        next_fire_at=following,
        last_fire_at=due.newest[-1],
        n_missed=cue.n_missed + n_missed,
        missed=(*cue.missed, *(each for each in due.newest if each not in fired))[-MAX_MISSED:],
    )
    return Turn(cue=changed, fires=fires, n_missed=n_missed)


def _fired(cue: Cue, due: DueInstants, now: datetime) -> tuple[datetime, ...]:
    grace_s = IN_TIME_S if cue.misfire is Misfire.SKIP else max(IN_TIME_S, cue.misfire_grace_s)
    recent = tuple(each for each in due.newest if now - each <= timedelta(seconds=grace_s))
    return recent if cue.misfire is Misfire.FIRE_ALL else recent[-1:]


def with_fires(cue: Cue, fires: Sequence[Fire]) -> Cue:
    """Remembering these fires: of those before them the ended ones are forgotten first."""
    kept = list(cue.fires)
    while kept and len(kept) + len(fires) > MAX_FIRES:
        kept.remove(next((each for each in kept if each.ended_at is not None), kept[0]))
    return replace(cue, fires=(*kept, *fires), n_fired=cue.n_fired + len(fires))


def end_of(execution: Execution, now: datetime) -> End | None:
    """How an execution ended; None while it is open."""
    if execution.is_open:
        return None
    outcome = execution.outcome
    return End(
        state=execution.state.value,
        is_success=outcome is not None and outcome.success,
        at=execution.ended_at or now,
        error=(outcome.error if outcome else None) or execution.last_error,
    )


def settled(cue: Cue, ulid: str, end: End) -> Cue | None:
    """The cue after one of its fires has ended; None when that is known already, or the fire is none of its own."""
    if not any(each.ulid == ulid for each in cue.open_fires):
        return None
    fires = tuple(_ended(each, end) if each.ulid == ulid else each for each in cue.fires)
    if end.is_success:
        return replace(cue, fires=fires, n_succeeded=cue.n_succeeded + 1, consecutive_failures=0)
    failed = replace(cue, fires=fires, n_failed=cue.n_failed + 1, consecutive_failures=cue.consecutive_failures + 1)
    return paused(failed) if cue.on_failure.pause and cue.status is CueStatus.ACTIVE else failed


def _ended(fire: Fire, end: End) -> Fire:
    return replace(fire, ended_at=end.at, state=end.state, is_success=end.is_success, error=end.error)


def paused(cue: Cue) -> Cue:
    """Without a next instant: what passes meanwhile is not missed."""
    return replace(cue, status=CueStatus.PAUSED, next_fire_at=None)


def scheduled(cue: Cue, now: datetime) -> Cue:
    """Active, with the next instant of its schedule: behind now, and behind whatever was fired already."""
    following = next_instant(cue.schedule, max(now, cue.last_fire_at or now))
    has_ended = following is None and not cue.schedule.is_on_demand
    return replace(cue, status=CueStatus.ENDED if has_ended else CueStatus.ACTIVE, next_fire_at=following)
