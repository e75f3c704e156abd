"""What clients ask of a cue, checked and in the words of the records. Pure."""

import re
from datetime import datetime
from typing import Any, Final

from pydantic_core import to_json

from contracts.cues import Schedule
from contracts.errors import Malformed
from contracts.records import JsonObject, Wish
from contracts.words import Channel, FallbackMode, VerificationMode
from gateway.instants import parse_instant
from gateway.schemas_cues import CueFields, RetryBody, ScheduleBody
from router.cron import parse_cron
from router.cue_schedule import instant_in, next_instant, zone_of

MAX_PAYLOAD_BYTES: Final = 65_536
_WALL: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?(?:\.[0-9]{1,9})?\Z")


def schedule_of(wanted: ScheduleBody | None, now: datetime, *, zone: str = "UTC") -> Schedule:
    """The schedule, which has an instant ahead; `zone` is the time zone where none is named.

    Raises `Malformed` (`invalid_schedule`), `Invalid` (`invalid_timezone`).
    """
    if wanted is None:
        return Schedule()
    name = wanted.timezone or zone
    zone_of(name)
    if wanted.cron is not None and wanted.at is not None:
        raise _bad_schedule("A schedule has cron or at, not both.")
    schedule = Schedule(cron=wanted.cron, at=_at(wanted.at, name), timezone=name)
    kind = "recurring" if schedule.cron is not None else "once" if schedule.at else "on_demand"
    if wanted.type not in (None, kind):
        raise _bad_schedule("type is recurring with cron, once with at, on_demand with neither.")
    if schedule.cron is not None:
        parse_cron(schedule.cron)
    if not schedule.is_on_demand and next_instant(schedule, now) is None:
        raise _bad_schedule("This schedule has no instant ahead.")
    return schedule


def _at(text: str | None, zone: str) -> datetime | None:
    if text is None:
        return None
    if (at := parse_instant(text)) is not None:
        return at
    try:
        if not _WALL.match(text):
            raise ValueError
        return instant_in(zone_of(zone), datetime.fromisoformat(text.upper()))
    except (ValueError, OverflowError):
        raise _bad_schedule("at is RFC 3339; without an offset it is read in the time zone.") from None


def checked_payload(payload: JsonObject) -> JsonObject:
    """Raises `Malformed` (`invalid_payload_size`)."""
    if len(to_json(payload)) > MAX_PAYLOAD_BYTES:
        raise Malformed("invalid_payload_size", f"A payload may have {MAX_PAYLOAD_BYTES} bytes.", field="payload")
    return payload


def retry_of(wanted: RetryBody | None) -> JsonObject:
    return (wanted or RetryBody()).model_dump()


def wish_of(wanted: CueFields, before: Wish, channel: Channel | None) -> Wish:
    """What is named of a wish, the rest as before. `channel` is the only one of a cue that has its own receiver."""
    named: dict[str, Any] = {name: getattr(wanted, name) for name in wanted.model_fields_set}
    mode, fallback = named.get("delivery_mode"), named.get("live_fallback_mode")
    asked = before.channel if mode is None else None if mode == "auto" else Channel(mode)
    return Wish(
        channel=channel or asked,
        fallback=FallbackMode(fallback) if fallback else before.fallback,
        claim_window_s=named.get("claim_window_s", before.claim_window_s),
        ttl_s=named.get("ttl_s", before.ttl_s),
        verification=VerificationMode(named["verification"]) if named.get("verification") else before.verification,
    )


def merged(payload: JsonObject, override: JsonObject | None, strategy: str) -> JsonObject:
    """A fire's payload: the cue's with the override's fields over it, or the override alone."""
    if override is None:
        return payload
    return checked_payload({**payload, **override} if strategy == "merge" else override)


def _bad_schedule(message: str) -> Malformed:
    return Malformed("invalid_schedule", message, field="schedule")
