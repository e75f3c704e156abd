"""Cursors: where a list goes on. Opaque to clients, and bound to the very list they came from. Pure."""

import base64
import hashlib
import re
from typing import Final

from contracts.errors import Malformed

_MARK_LENGTH: Final = 8
_NUMBER: Final = re.compile(r"[0-9]{1,19}\Z")


def write_cursor(position: str, scope: str) -> str:
    """A cursor behind `position` in the list that `scope` names: the caller and everything the list is filtered by."""
    text = f"{_mark(position, scope)}{position}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, scope: str) -> str:
    """The position in a cursor; raises `Malformed` (`invalid_cursor`) for one that was changed or is another list's."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except ValueError:
        raise _invalid() from None
    mark, position = text[:_MARK_LENGTH], text[_MARK_LENGTH:]
    if not position or mark != _mark(position, scope):
        raise _invalid()
    return position


def write_number(position: int | None, scope: str) -> str | None:
    return None if position is None else write_cursor(str(position), scope)


def read_number(cursor: str | None, scope: str) -> int | None:
    """The number in a cursor, None without one; raises `Malformed` (`invalid_cursor`) for anything else."""
    if cursor is None:
        return None
    position = read_cursor(cursor, scope)
    # The mark is no secret, so whoever can compute it can put something else than a number behind it.
    if not _NUMBER.match(position):
        raise _invalid()
    return int(position)


def _mark(position: str, scope: str) -> str:
    return hashlib.sha256(f"{scope}\0{position}".encode()).hexdigest()[:_MARK_LENGTH]


def _invalid() -> Malformed:
    return Malformed("invalid_cursor", "This cursor does not belong to this list.", field="cursor")
