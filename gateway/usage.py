"""What an owner uses, in the shape CueAPI's clients read: what is counted here, and null for what is not. Pure.

Everything is counted from the projection's rows, which are the ledger's, so an emptied Redis changes no number for
longer than the rebuilding takes.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from contracts.records import JsonObject
from contracts.words import OPEN_STATES, State
from router.explain import instant

PLAN: Final = "self_hosted"
"""Nothing is sold here, so nothing is limited by a plan."""
MONTHS: Final = 12
"""How many calendar months (UTC) are told, the present one among them."""


def month_starts(now: datetime, months: int = MONTHS) -> list[datetime]:
    """The first instants of the last calendar months, rising; the last is that of the present month."""
    starts = [_first_of(now)]
    while len(starts) < months:
        starts.append(_first_of(starts[-1] - timedelta(days=1)))
    return starts[::-1]


def usage_view(
    counts: Mapping[State, int],
    received_before: Sequence[int],
    now: datetime,
    *,
    requests_per_minute: int | None = None,
    n_cues: int = 0,
    n_active_cues: int = 0,
) -> JsonObject:
    """`counts`: how many messages to an owner's agents are in each state.

    `received_before`: how many there were before each of `month_starts(now)`, and how many there are in all.
    """
    total = sum(counts.values())
    still_open = sum(count for state, count in counts.items() if state in OPEN_STATES)
    period = _period(now)
    return {
        "plan": PLAN,
        "billing_period": period,
        "period": period,
        "messages": {
            "on_record": total,
            "open": still_open,
            "ended": total - still_open,
            "by_state": {state.value: count for state, count in counts.items() if count},
            "by_month": _by_month(received_before, now),
            "earlier": received_before[0],
        },
        "cues": {**_meter(n_cues), "active": n_active_cues},
        "executions": {
            **_meter(this_month(received_before)),
            "percentage": 0.0,
            "projected_month_end": None,
            "will_exceed_limit": False,
        },
        "outcomes": {"reported": counts.get(State.DELIVERED, 0), "succeeded": None, "failed": None},
        "rate_limit": {"requests_per_minute": requests_per_minute, "current_usage": None},
        "upgrade_url": None,
    }


def this_month(received_before: Sequence[int]) -> int:
    """How many messages were received in the last of the months."""
    return received_before[-1] - received_before[-2]


def _by_month(received_before: Sequence[int], now: datetime) -> list[JsonObject]:
    """The newest month first."""
    received = [after - before for before, after in pairwise(received_before)]
    months = [f"{start:%Y-%m}" for start in month_starts(now, len(received))]
    told = zip(reversed(months), reversed(received), strict=True)
    return [{"month": month, "received": count} for month, count in told]


def _meter(used: int) -> JsonObject:
    return {"used": used, "limit": None, "remaining": None, "percent_used": 0.0}


def _period(now: datetime) -> JsonObject:
    start = _first_of(now)
    end = _first_of(start + timedelta(days=32))
    return {"start": instant(start), "end": instant(end), "days_remaining": (end - now).days}


def _first_of(at: datetime) -> datetime:
    return at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
