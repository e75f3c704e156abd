"""How a redrive gets on: taken, moved on page by page, cancelled, done. Pure.

running ──page──▶ running ──the last page──▶ done
   └──cancelled by its owner──▶ cancelling ──what is in hand is counted──▶ cancelled
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from contracts.redrives import Redrive, RedriveRun, RedriveState, RefusedFor

HOLD: Final = timedelta(seconds=15)
"""How long a router that is not heard of keeps a redrive from the others."""
PAGE: Final = 50
PAGE_S: Final = 2.0
"""A page is worked off within about so many seconds: how soon a cancellation is noticed."""
OPEN_STATES: Final = frozenset({RedriveState.RUNNING, RedriveState.CANCELLING})


@dataclass(frozen=True, slots=True)
class Redriven:
    """The message has its new execution, by this redrive: now, or when somebody worked on it before."""


@dataclass(frozen=True, slots=True)
class MovedOn:
    """The message is no dead letter of this redrive any more: somebody else was at it, or it ended again since."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was stored; `reason` is a gate's, or says why the gates were not asked."""

    reason: str


Passage = Redriven | MovedOn | Refused
"""What became of one message of a redrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """What to take in hand next, the position behind it, and whether it is the last."""

    ulids: tuple[str, ...]
    position: int | None
    is_last: bool


@dataclass(slots=True)
class Tally:
    """What became of the messages in hand."""

    redriven: int = 0
    moved_on: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def count(self, passage: Passage) -> None:
        if isinstance(passage, Refused):
            self.refused[passage.reason] += 1
        elif isinstance(passage, Redriven):
            self.redriven += 1
        else:
            self.moved_on += 1


def page_size(job: Redrive) -> int:
    return max(1, min(PAGE, int(job.rate_per_s * PAGE_S)))


def is_open(run: RedriveRun) -> bool:
    return run.state in OPEN_STATES


def not_before(run: RedriveRun, name: str, now: datetime) -> datetime | None:
    """When `name` may work on it; None: now."""
    if run.holder in (None, name) or run.held_until is None or run.held_until <= now:
        return None
    return run.held_until


def is_held(run: RedriveRun, name: str, now: datetime) -> bool:
    return run.holder == name and run.held_until is not None and run.held_until > now


def is_running_out(run: RedriveRun, now: datetime) -> bool:
    """Whether half of the hold is over: what is in hand may take longer than a hold lasts."""
    return run.held_until is not None and run.held_until - now < HOLD / 2


def taken(run: RedriveRun, name: str, now: datetime) -> RedriveRun:
    return replace(run, holder=name, held_until=now + HOLD, updated_at=now)


def counted(run: RedriveRun, tally: Tally) -> RedriveRun:
    """With what became of what was in hand; nothing is in hand any more."""
    refused = Counter({each.reason: each.count for each in run.refused}) + tally.refused
    return replace(
        run,
        in_hand=(),
        redriven=run.redriven + tally.redriven,
        moved_on=run.moved_on + tally.moved_on,
        refused=tuple(RefusedFor(reason=reason, count=count) for reason, count in refused.most_common()),
    )


def moved(run: RedriveRun, portion: Portion | None, name: str, now: datetime) -> RedriveRun:
    """With the next portion in hand and held on; ended where there is none, or its owner wants no more."""
    if run.state is RedriveState.CANCELLING:
        return _ended(run, RedriveState.CANCELLED, now)
    if portion is None:
        return _ended(run, RedriveState.DONE, now)
    taken_in_hand = replace(run, in_hand=portion.ulids, position=portion.position, is_last=portion.is_last)
    return taken(taken_in_hand, name, now)


def cancelling(run: RedriveRun, now: datetime) -> RedriveRun:
    return replace(run, state=RedriveState.CANCELLING, updated_at=now)


def was_only_cancelled(before: RedriveRun, run: RedriveRun) -> bool:
    """Whether its owner's cancellation is all that has happened to it."""
    return run == replace(before, state=RedriveState.CANCELLING, updated_at=run.updated_at)


def named_portion(job: Redrive, position: int | None) -> Portion | None:
    """The next of the messages a redrive names; None behind the last."""
    start = position or 0
    chosen: Sequence[str] = job.message_ids[start : start + page_size(job)]
    if not chosen:
        return None
    end = start + len(chosen)
    ulids = tuple(each.removeprefix("msg_") for each in chosen)
    return Portion(ulids=ulids, position=end, is_last=end >= len(job.message_ids))


def _ended(run: RedriveRun, state: RedriveState, now: datetime) -> RedriveRun:
    return replace(run, state=state, holder=None, held_until=None, updated_at=now, ended_at=now)
