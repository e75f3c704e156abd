"""Ids: their shapes, and the ways from one to another.

    msg_<ulid>            a message; the same ulid names its subject in the ledger
    exec_<ulid>           its first execution; exec_<ulid>r2, exec_<ulid>r3 … the ones a redrive starts
    agent_<12 of a-z0-9>  an agent; agt_<12> is read as the same agent
    sess_<ulid>           one session of an agent; its ulid says of which one, and when it registered
    sa_<ulid>             a service account
    redrive_<ulid>        one redrive of many dead letters
    echo_<ulid>           one question along the way pushes take; its ulid says when it was asked

A message sent with an Idempotency-Key takes its ulid from (owner, key): the same request always names the same
subject, so that the ledger's compare-and-set alone decides "create once". Ids are opaque to clients.
"""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Final

CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = [high + low for high in CROCKFORD for low in CROCKFORD]
_SHIFTS: Final = range(120, -1, -10)
_BASE_36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_CHANCE_BITS: Final = 17
_CHANCE: Final = (1 << _CHANCE_BITS) - 1
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_ULID: Final = r"[0-7][0-9a-hjkmnp-tv-z]{25}"
MESSAGE_ID: Final = re.compile(rf"msg_({_ULID})\Z")
EXECUTION_ID: Final = re.compile(rf"exec_({_ULID})(?:r([1-9][0-9]{{0,5}}))?\Z")
SESSION_ID: Final = re.compile(rf"sess_({_ULID})\Z")
ACCOUNT_ID: Final = re.compile(rf"sa_({_ULID})\Z")
REDRIVE_ID: Final = re.compile(rf"redrive_({_ULID})\Z")
ECHO_ID: Final = re.compile(rf"echo_({_ULID})\Z")
AGENT_ID: Final = re.compile(r"(?:agent|agt)_([a-z0-9]{12})\Z")
SLUG: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
OWNER: Final = SLUG
MONITOR_ID: Final = SLUG
"""What a host's monitor calls itself; a token of subjects."""


def message_id(ulid: str) -> str:
    return f"msg_{ulid}"


def execution_id(ulid: str, number: int = 1) -> str:
    return f"exec_{ulid}" if number == 1 else f"exec_{ulid}r{number}"


def ulid_of_message(text: str) -> str | None:
    """The ulid inside a message id, or None when `text` is not one."""
    match = MESSAGE_ID.match(text)
    return match[1] if match else None


def ulid_of_execution(text: str) -> tuple[str, int] | None:
    """The (message ulid, execution number) inside an execution id, or None when `text` is not one."""
    match = EXECUTION_ID.match(text)
    return (match[1], int(match[2] or 1)) if match else None


def canonical_agent_id(text: str) -> str | None:
    """`agent_…` for both spellings of an agent id, or None when `text` is neither."""
    match = AGENT_ID.match(text)
    return f"agent_{match[1]}" if match else None


def ulid_for_key(owner: str, idempotency_key: str) -> str:
    """The ulid every request with this key of this owner shares: 128 bits of a hash over both, length-prefixed."""
    digest = hashlib.sha256(f"{len(owner)}:{owner}:{idempotency_key}".encode()).digest()
    return encode_ulid(int.from_bytes(digest[:16], "big"))


def encode_ulid(value: int) -> str:
    """Write a 128-bit number in the ULID alphabet, lower case, 26 characters."""
    return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])


def session_id(agent: str, registered_at: datetime, chance: int) -> str:
    """The id of a session of the agent with this id, registered at this instant.

    The agent takes 63 bits behind the time and leaves 17 to chance: who makes two ids within a millisecond compares
    them. So a session is found by its id alone, and nobody keeps a list of them.
    """
    milliseconds = (registered_at - _EPOCH) // _MILLISECOND
    number = int(agent.removeprefix("agent_"), 36)
    return f"sess_{encode_ulid(milliseconds << 80 | number << _CHANCE_BITS | chance & _CHANCE)}"


def agent_of_session(text: str) -> str | None:
    """The id of the agent whose session this is; None when `text` is no id of a session that `session_id` made."""
    match = SESSION_ID.match(text)
    if match is None:
        return None
    value = 0
    for letter in match[1][10:]:
        value = value << 5 | CROCKFORD.index(letter)
    number, letters = value >> _CHANCE_BITS, ""
    for _ in range(12):
        number, digit = divmod(number, 36)
        letters = _BASE_36[digit] + letters
    return f"agent_{letters}" if number == 0 else None


def echo_id(asked_at: datetime, randomness: bytes) -> str:
    """The id of an echo asked at this instant; `randomness` is 10 bytes."""
    milliseconds = (asked_at - _EPOCH) // _MILLISECOND
    return f"echo_{encode_ulid(milliseconds << 80 | int.from_bytes(randomness, 'big'))}"


def echo_asked_at(text: str) -> datetime | None:
    """When the echo of this id was asked, to the millisecond; None when `text` is no echo's id."""
    match = ECHO_ID.match(text)
    if match is None:
        return None
    milliseconds = 0
    for letter in match[1][:10]:
        milliseconds = milliseconds << 5 | CROCKFORD.index(letter)
    try:
        return _EPOCH + milliseconds * _MILLISECOND
    except OverflowError:
        # The year 9999 has passed: nobody of ours asked that.
        return None
