"""Telling a sender what arrived: the body as it was read, and its SHA-256, added to the answer when a header asks."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

from pydantic_core import from_json, to_json

from contracts.records import JsonObject

HEADERS: Final = frozenset({b"x-postroom-verify-echo", b"x-cueapi-verify-echo"})
METHODS: Final = frozenset({"POST", "PATCH", "PUT"})


def asks_for_echo(value: bytes) -> bool:
    return value.strip().lower() == b"true"


def wants_echo(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name in HEADERS and asks_for_echo(value) for name, value in headers)


def echo_of(received: Any) -> JsonObject:
    """The two fields for what was received: a text as it is, nothing at all, or an object, hashed in canonical form.

    The canonical form has sorted keys, no spaces, and characters beyond ASCII as they are.
    """
    return {"body_received": received, "body_received_sha256": hashlib.sha256(_canonical(received)).hexdigest()}


def with_echo(body: bytes, received: Any) -> bytes:
    """An answer with the two fields; one that is no JSON object stays as it is."""
    if not body.startswith(b"{"):
        return body
    return to_json({**from_json(body), **echo_of(received)})


def _canonical(received: Any) -> bytes:
    match received:
        case None:
            return b""
        case str():
            return received.encode()
        case _:
            return json.dumps(received, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
