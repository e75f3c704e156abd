"""Weak ETags: the same content has the same one, and whoever has it already is told just that. Pure."""

import hashlib
from typing import Any

from pydantic_core import to_json


def weak_etag(content: Any) -> str:
    """`W/"…"` with 16 hexadecimal digits of the content's hash."""
    return f'W/"{hashlib.sha256(to_json(content)).hexdigest()[:16]}"'


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Say whether an `If-None-Match` header names this ETag, compared weakly (RFC 9110, section 8.8.3.2)."""
    if if_none_match is None:
        return False
    named = (each.strip().removeprefix("W/") for each in if_none_match.split(","))
    return any(each in ("*", etag.removeprefix("W/")) for each in named)
