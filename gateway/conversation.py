"""What a new message belongs to: the message it answers, who gets the reply, and how urgent it may be."""

from dataclasses import dataclass
from typing import Final

import structlog

from contracts import ids
from contracts.clock import Ids
from contracts.errors import NotFound, TooMany, Unavailable
from contracts.records import Context, Message, Principal, Sender
from gateway.ports import HighPriorities, Urgency
from gateway.schemas_messages import USUAL_PRIORITY, Wished
from router.guards import hops_after
from router.service import Service

LONGEST_CHAIN: Final = 16
"""How many senders a message remembers; `hop` goes on counting."""
HOUR_S: Final = 3_600
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Placed:
    """A message's context, and the priority the sender asked for."""

    context: Context = Context()
    asked_priority: int = USUAL_PRIORITY


NOTHING_BEFORE: Final = Placed()


class Conversation:
    """Places a message. Reads the ledger only for one that answers, asks Redis only for one of high priority."""

    def __init__(self, *, service: Service, high_priorities: HighPriorities, ids: Ids) -> None:
        self._service = service
        self._high_priorities = high_priorities
        self._ids = ids

    async def place(
        self,
        wanted: Wished,
        *,
        sender: Sender,
        recipient_id: str,
        reply_to_agent: str | None,
        idempotency_key: str | None,
        principal: Principal,
        is_sent: bool = True,
    ) -> Placed:
        """A message of high priority is counted if it `is_sent`.

        Raises `NotFound` (`reply_to_not_found`), `TooMany` (`priority_high_rate_limit`).
        """
        parent = None if wanted.reply_to is None else await self._parent(wanted.reply_to, principal)
        priority = wanted.priority
        if is_sent and priority > USUAL_PRIORITY:
            priority = await self._allowed(priority, sender, recipient_id, idempotency_key)
        context = Context(
            thread_id=parent.thread if parent else None,
            reply_to=parent.id if parent else None,
            correlation_id=wanted.correlation_id,
            expects_reply=wanted.expects_reply,
            reply_to_agent=reply_to_agent,
            priority=priority,
            priority_downgraded=priority < wanted.priority,
            hop=hops_after(parent) if parent else 0,
            chain=chain_after(parent) if parent else (),
            is_auto_reply=wanted.auto_reply,
        )
        return Placed(context, wanted.priority)

    async def _parent(self, message_id: str, principal: Principal) -> Message:
        try:
            return (await self._service.find_message(message_id, principal, "message.answer")).history.message
        except NotFound:
            message = "There is no message to reply to under this id."
            raise NotFound("reply_to_not_found", message, field="reply_to") from None

    async def _allowed(self, priority: int, sender: Sender, recipient_id: str, idempotency_key: str | None) -> int:
        """The priority as it counts. A repetition under the same Idempotency-Key is the same message."""
        member = ids.ulid_for_key(sender.owner, idempotency_key) if idempotency_key else self._ids.ulid()
        try:
            ration = await self._high_priorities.take(
                owner=sender.owner, sender=sender.agent_id or sender.owner, recipient=recipient_id, member=member
            )
        except Unavailable as error:
            # What cannot be counted is not granted; the message itself goes on, and says so.
            log.warning("priority_not_counted", owner=sender.owner, code=error.code)
            return USUAL_PRIORITY
        if ration.urgency is Urgency.REFUSED:
            raise _too_many(ration.retry_after_s)
        return priority if ration.urgency is Urgency.GRANTED else USUAL_PRIORITY


def chain_after(parent: Message) -> tuple[str, ...]:
    """The agents that sent the messages before an answer to `parent`, oldest first; the last sixteen of them.

    It begins anew behind a message that names no sending agent, as `hop` does.
    """
    sender = parent.sender.agent_id
    return (*parent.context.chain, sender)[-LONGEST_CHAIN:] if sender else ()


def _too_many(retry_after_s: float) -> TooMany:
    message = "This owner has sent ten messages of high priority within the hour."
    return TooMany(
        "priority_high_rate_limit",
        message,
        field="priority",
        window_seconds=HOUR_S,
        retry_after_s=retry_after_s,
    )
