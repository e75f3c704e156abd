"""How alive a worker is, by the age of its last beat. Pure."""

from datetime import datetime
from typing import Final

from contracts.records import JsonObject
from gateway.ports import WorkerSeen
from gateway.presence import age_s
from router.explain import instant

ACTIVE_S: Final = 180
STALE_S: Final = 900


def heartbeat_status(seconds: int) -> str:
    """`active` below three minutes, `stale` below fifteen, then `dead`."""
    if seconds < ACTIVE_S:
        return "active"
    return "stale" if seconds < STALE_S else "dead"


def worker_view(worker: WorkerSeen, now: datetime) -> JsonObject:
    seconds = age_s(worker.last_seen_at, now) or 0
    return {
        "worker_id": worker.worker_id,
        "last_heartbeat": instant(worker.last_seen_at),
        "seconds_since_heartbeat": seconds,
        "heartbeat_status": heartbeat_status(seconds),
        "handlers": list(worker.handlers),
        "registered_since": instant(worker.first_seen_at),
    }
