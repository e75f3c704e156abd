"""The messages of a cue: what a fire sends, and what tells of a fire that failed. Pure."""

import json
from collections.abc import Sequence
from typing import Any, Final

from contracts.cues import MARK, Cue, CueTrigger, Fire, alert_key, fire_key
from contracts.ids import execution_id, message_id
from contracts.records import Agent, JsonObject, LiveSession, Sender, Wish
from contracts.words import AgentStatus
from router.cue_turns import End
from router.explain import instant
from router.service import Draft

MAX_SUBJECT: Final = 255


def scheduled_draft(cue: Cue, fire: Fire, recipient: Agent, sessions: Sequence[LiveSession]) -> Draft:
    """The message of one instant of a cue's schedule: whoever makes it makes the same one."""
    return fire_draft(cue, fire, recipient, sessions, payload=cue.payload, key=fire_key(cue.id, fire.scheduled_for))


def fire_draft(
    cue: Cue,
    fire: Fire,
    recipient: Agent,
    sessions: Sequence[LiveSession],
    *,
    payload: JsonObject,
    key: str,
    wish: Wish | None = None,
    more: JsonObject | None = None,
) -> Draft:
    """The message of one fire. Its metadata holds the payload, its task and, by the server's word, the cue."""
    mark = {
        "id": cue.id,
        "name": cue.name,
        # A fire on demand has the moment it was accepted: a retry under its key could not repeat another.
        "scheduled_for": instant(fire.scheduled_for) if is_scheduled(fire) else None,
        "triggered_by": fire.trigger.value,
        **(more or {}),
    }
    task = payload.get("task")
    metadata: JsonObject = {"payload": payload, MARK: mark}
    return Draft(
        sender=Sender(owner=cue.owner, key_id=cue.key_id),
        recipient=recipient,
        sessions=tuple(sessions),
        body=cue.message or json.dumps(payload, ensure_ascii=False),
        subject=(cue.subject or cue.name)[:MAX_SUBJECT],
        metadata={"task": task, **metadata} if isinstance(task, str) else metadata,
        wish=wish or cue.wish,
        idempotency_key=key,
    )


def alert_draft(cue: Cue, fire: Fire, end: End, recipient: Agent, sessions: Sequence[LiveSession]) -> Draft:
    """The message that tells of a failed fire. It is no fire itself: its own failure sets nothing off."""
    facts: dict[str, Any] = {
        "type": "cue.failed",
        "cue_id": cue.id,
        "name": cue.name,
        "message_id": message_id(fire.ulid),
        "execution_id": execution_id(fire.ulid),
        "scheduled_for": instant(fire.scheduled_for),
        "state": end.state,
        "error": end.error,
    }
    return Draft(
        sender=Sender(owner=cue.owner, key_id=cue.key_id),
        recipient=recipient,
        sessions=tuple(sessions),
        body=json.dumps(facts, ensure_ascii=False),
        subject=f"Failed: {cue.name}"[:MAX_SUBJECT],
        metadata={"payload": facts},
        wish=Wish(),
        idempotency_key=alert_key(cue.id, fire.ulid, recipient.id),
    )


def may_receive(cue: Cue, agent: Agent | None, *, is_granted: bool) -> bool:
    """Whether a cue may still send to an agent: its owner's own, or one that somebody opened to that owner."""
    if agent is None or agent.deleted_at is not None:
        return False
    if agent.owner == cue.owner:
        return True
    return is_granted and agent.external_addressable and agent.status is AgentStatus.ACTIVE


def is_scheduled(fire: Fire) -> bool:
    return fire.trigger is CueTrigger.SCHEDULED
