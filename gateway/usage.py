"""What an owner uses, in the shape CueAPI's clients read: what is counted here, and null for what is not. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from contracts.records import JsonObject
from contracts.words import OPEN_STATES, State
from router.explain import instant

PLAN: Final = "self_hosted"
"""Nothing is sold here, so nothing is limited by a plan."""


def usage_view(counts: Mapping[State, int], now: datetime, *, requests_per_minute: int | None = None) -> JsonObject:
    """`counts`: how many messages to an owner's agents are in each state."""
    total = sum(counts.values())
    still_open = sum(count for state, count in counts.items() if state in OPEN_STATES)
    period = _month(now)
    return {
        "plan": PLAN,
        "billing_period": period,
        "period": period,
        "messages": {
            "on_record": total,
            "open": still_open,
            "ended": total - still_open,
            "by_state": {state.value: count for state, count in counts.items() if count},
        },
        "cues": {**_meter(0), "active": 0},
        "executions": {**_meter(total), "percentage": 0.0, "projected_month_end": None, "will_exceed_limit": False},
        "outcomes": {"reported": counts.get(State.DELIVERED, 0), "succeeded": None, "failed": None},
        "rate_limit": {"requests_per_minute": requests_per_minute, "current_usage": None},
        "upgrade_url": None,
    }


def _meter(used: int) -> JsonObject:
    return {"used": used, "limit": None, "remaining": None, "percent_used": 0.0}


def _month(now: datetime) -> JsonObject:
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = (start + timedelta(days=32)).replace(day=1)
    return {"start": instant(start), "end": instant(end), "days_remaining": (end - now).days}
