"""A cue as clients read it, ours and CueAPI's. Pure."""

from contracts.cues import Cue, Fire, Schedule
from contracts.ids import execution_id, message_id
from contracts.records import JsonObject
from router.explain import instant


def cue_view(cue: Cue, *, warning: str | None = None) -> JsonObject:
    wish, failure = cue.wish, cue.on_failure
    return {
        "id": cue.id,
        "name": cue.name,
        "description": cue.description,
        "status": cue.status.value,
        "transport": cue.transport.value,
        "schedule": schedule_view(cue.schedule),
        "callback": {"url": cue.callback_url, "method": "POST", "headers": {}},
        "payload": cue.payload,
        "retry": cue.retry,
        "on_failure": {
            "email": failure.email,
            "webhook": failure.webhook_url,
            "to": failure.to,
            "pause": failure.pause,
        },
        "verification": {"mode": wish.verification.value},
        "to": cue.to,
        "delivery_mode": wish.delivery_mode,
        "live_fallback_mode": wish.fallback.value,
        "claim_window_s": wish.claim_window_s,
        "ttl_s": wish.ttl_s,
        "subject": cue.subject,
        "message": cue.message,
        "misfire_policy": cue.misfire.value,
        "misfire_grace_s": cue.misfire_grace_s,
        **_history(cue),
        "warning": warning,
        "created_at": instant(cue.created_at),
        "updated_at": instant(cue.updated_at),
    }


def schedule_view(schedule: Schedule) -> JsonObject:
    kind = "recurring" if schedule.cron else "once" if schedule.at else "on_demand"
    return {"type": kind, "cron": schedule.cron, "at": instant(schedule.at), "timezone": schedule.timezone}


def _history(cue: Cue) -> JsonObject:
    return {
        "next_run": instant(cue.next_fire_at),
        "last_run": instant(max((each.scheduled_for for each in cue.fires), default=None)),
        "run_count": cue.n_fired,
        "fired_count": cue.n_fired,
        "missed_count": cue.n_missed,
        "missed": [instant(each) for each in cue.missed],
        "succeeded_count": cue.n_succeeded,
        "failed_count": cue.n_failed,
        "consecutive_failures": cue.consecutive_failures,
        "executions": [_fire(each) for each in reversed(cue.fires)],
    }


def _fire(fire: Fire) -> JsonObject:
    status = "pending" if fire.ended_at is None else "success" if fire.is_success else "failed"
    return {
        "id": execution_id(fire.ulid),
        "message_id": message_id(fire.ulid),
        "scheduled_for": instant(fire.scheduled_for),
        "triggered_by": fire.trigger.value,
        "status": status,
        "state": fire.state,
        "error_message": fire.error,
        "ended_at": instant(fire.ended_at),
    }
