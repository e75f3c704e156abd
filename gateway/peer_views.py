"""A message in the peer's spelling: the fields CueAPI's clients read, added to the message view. Pure.

    our state                                            their delivery_state
    scheduled, waiting, offered, queued, in_inbox        queued
    leased                                               delivering     (an attempt is under way)
    claimed, inbox_delivered                             delivered
    inbox_read                                           read
    delivered (inbox)                                    acked
    delivered (live, bg, webhook)                        delivered
    expired, expired_unread                              expired
    every other end                                      failed

Our own fields stay as they are, so the answer is a superset. `idempotency_key` is never shown. What cannot have both
meanings at once (`to`, an agent's `status`, a plan) is theirs for clients of theirs only: `as_theirs` and its sisters.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from pydantic_core import from_json, to_json

from contracts.records import JsonObject
from contracts.words import OPEN_STATES, AgentStatus, Reason, State
from router.receipts import Receipt, first_at

PREVIEW_CHARACTERS: Final = 200
UNLIMITED: Final = 2**53 - 1
"""Instead of a limit where there is none: the largest whole number that every reader of JSON keeps."""
_STATES: Final[Mapping[str, str]] = {
    **{state.value: "queued" if state in OPEN_STATES else "failed" for state in State},
    State.LEASED.value: "delivering",
    State.CLAIMED.value: "delivered",
    State.INBOX_DELIVERED.value: "delivered",
    State.INBOX_READ.value: "read",
    State.DELIVERED.value: "delivered",
    State.EXPIRED.value: "expired",
    State.EXPIRED_UNREAD.value: "expired",
}
STATES_OF: Final[Mapping[str, tuple[State, ...]]] = {
    **{word: tuple(state for state in State if _STATES[state.value] == word) for word in sorted(set(_STATES.values()))},
    "acked": (State.DELIVERED,),
}
"""Our states by their word. A state alone does not tell an acknowledged message from one delivered otherwise."""
_ACKNOWLEDGED: Final = Reason.ACKNOWLEDGED.value
_INBOX_DELIVERED: Final = State.INBOX_DELIVERED.value
_INBOX_READ: Final = State.INBOX_READ.value


def delivery_state(state: str, reason: str) -> str:
    """Their word for where a message stands."""
    return "acked" if reason == _ACKNOWLEDGED else _STATES[state]


def peer_fields(view: JsonObject, told: list[Receipt] | None = None) -> JsonObject:
    """The fields to add to a message view. Without its receipts, the instant of its last step is all that is known."""
    state, text, ended_at = view["state"], view["message"], view["ended_at"]
    word = delivery_state(state, view["reason"])
    failed = word == "failed"
    return {
        "user_id": view["from"]["owner"],
        "from_agent_id": view["from"]["agent_id"],
        "to_agent_id": view["to"]["agent_id"],
        "body": text,
        "preview": text[:PREVIEW_CHARACTERS],
        "delivery_state": word,
        "reply_to_agent_id": view["reply_to_agent"],
        "created_at": view["accepted_at"],
        "delivered_at": _delivered_at(view, word) if told is None else _seen_at(told, view, word),
        "read_at": (view["updated_at"] if state == _INBOX_READ else None) if told is None else first_at(told, "read"),
        "acked_at": ended_at if word == "acked" else None,
        "failed_at": ended_at if failed else None,
        "message_dispatch_error": view["last_error"] if failed else None,
    }


def with_peer_fields(view: bytes) -> bytes:
    """A stored view, as bytes, as clients of theirs read it."""
    value = from_json(view)
    return to_json({**as_theirs(value), **peer_fields(value)})


def as_theirs(view: JsonObject) -> JsonObject:
    """A message view for clients of theirs, who read `to` as a text."""
    to = view["to"]
    return {**view, "to": f"{to['slug']}@{to['owner']}"}


def agent_as_theirs(view: JsonObject) -> JsonObject:
    """An agent view for clients of theirs: every agent has a display name, and `status` is what was stated of it."""
    assumed = "online" if view["status"] == AgentStatus.ACTIVE else "offline"
    return {
        **view,
        "display_name": view["display_name"] or view["slug"],
        "status": view["stated_presence"] or assumed,
    }


def usage_as_theirs(view: JsonObject) -> JsonObject:
    """What an owner uses, for clients of theirs, who compare with a limit and have no word for there being none."""
    rate = view["rate_limit"]
    return {
        **view,
        "plan": {"name": view["plan"]},
        "executions": {**view["executions"], "limit": UNLIMITED},
        "rate_limit": {**rate, "limit": rate["requests_per_minute"]},
    }


def is_peers_client(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a client names itself as one of theirs. Adding the fields to a list means reading every view of it."""
    for name, value in headers:
        if name.startswith(b"x-cueapi-") or (name == b"user-agent" and value.lower().startswith(b"cueapi")):
            return True
    return False


def _delivered_at(view: JsonObject, word: str) -> str | None:
    if view["state"] == _INBOX_DELIVERED:
        at: str | None = view["updated_at"]
    elif view["claim"] is not None:
        at = view["claim"]["claimed_at"]
    else:
        at = view["ended_at"] if word == "delivered" else None
    return at


def _seen_at(told: list[Receipt], view: JsonObject, word: str) -> str | None:
    handed_out = first_at(told, "handed_out") or first_at(told, "claimed")
    return handed_out or _delivered_at(view, word)
