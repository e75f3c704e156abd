"""Messages to the broker as they travel: PUB and HPUB of the NATS client protocol.

nats-py renders one message at a time and checks each header by a pattern, which costs more than all the rest of an
append. Subjects and headers here are our own words and numbers.
"""

from collections.abc import Mapping
from typing import Final

BATCH_ID: Final = "Nats-Batch-Id"
BATCH_SEQUENCE: Final = "Nats-Batch-Sequence"


def published(subject: str, payload: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None) -> bytes:
    """One message. Raises `ValueError` for a subject or a header that would break out of its line."""
    if not headers:
        _require_word(subject)
        return b"%b%b\r\n" % (f"PUB {subject} {reply} {len(payload)}\r\n".encode(), payload)
    return _with_headers(subject, payload, reply, _lines(headers))


def batch_member(
    subject: str,
    payload: bytes,
    batch_id: str,
    number: int,
    *,
    reply: str = "",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """One message of an atomic batch, in which it has that number. Raises as `published` does."""
    lines = f"{BATCH_ID}: {batch_id}\r\n{BATCH_SEQUENCE}: {number}\r\n"
    return _with_headers(subject, payload, reply, lines + _lines(headers) if headers else lines)


def _with_headers(subject: str, payload: bytes, reply: str, lines: str) -> bytes:
    _require_word(subject)
    block = f"NATS/1.0\r\n{lines}\r\n".encode()
    line = f"HPUB {subject} {reply} {len(block)} {len(block) + len(payload)}\r\n"
    return b"%b%b%b\r\n" % (line.encode(), block, payload)


def _lines(headers: Mapping[str, str]) -> str:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers):
        raise ValueError("a header is one line")
    return lines


def _require_word(subject: str) -> None:
    if subject.split() != [subject]:
        raise ValueError("a subject is one word")
