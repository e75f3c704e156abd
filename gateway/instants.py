"""Instants as clients write them: RFC 3339, and never without an offset. Pure."""

import re
from datetime import UTC, datetime
from typing import Final

_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})\Z"
)


def parse_instant(text: str) -> datetime | None:
    """The instant in UTC, to the microsecond; None for what is no instant, or has no offset."""
    if not _RFC3339.match(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        # No such day, or one that is not in the years 1 to 9999 in UTC.
        return None
