"""A sender's request becomes a draft: who sends, to whom, what, and under which Idempotency-Key."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from contracts.clock import Clock
from contracts.errors import Invalid, Malformed, NotFound
from contracts.records import Agent, LiveSession, Message, Principal, Sender
from contracts.words import Channel
from gateway.address import parse_address
from gateway.auth import authorize
from gateway.conversation import NOTHING_BEFORE, Conversation, Placed
from gateway.directory import Directory
from gateway.grants import Grants
from gateway.lookups import LookupBudget
from gateway.schemas_messages import NewMessage, RouteQuestion, SelectedMessage
from gateway.verify_echo import asks_for_echo
from router.selection import Selected
from router.service import Draft

Sendable: TypeAlias = NewMessage | SelectedMessage | RouteQuestion
FURTHEST_AHEAD: Final = timedelta(days=366)
_IDEMPOTENCY_KEY: Final = re.compile(rb"[\x20-\x7e]{1,255}\Z")
_FIELDS: Final = {
    b"idempotency-key": "Idempotency-Key",
    b"x-postroom-from-agent": "X-Postroom-From-Agent",
    b"x-cueapi-from-agent": "X-Postroom-From-Agent",
    b"x-postroom-verify-echo": "X-Postroom-Verify-Echo",
    b"x-cueapi-verify-echo": "X-Postroom-Verify-Echo",
}


@dataclass(frozen=True, slots=True)
class SendHeaders:
    """What a request to send says in its headers."""

    idempotency_key: str | None = None
    from_agent: str | None = None
    verify_echo: bool = False


NO_HEADERS: Final = SendHeaders()


class Intake:
    """Makes drafts. Every lookup of a plain message is answered from the directory's memory."""

    def __init__(
        self,
        *,
        directory: Directory,
        grants: Grants,
        conversation: Conversation,
        clock: Clock,
        lookups: LookupBudget,
    ) -> None:
        self._directory = directory
        self._grants = grants
        self._conversation = conversation
        self._clock = clock
        self._lookups = lookups

    async def draft(self, wanted: NewMessage, headers: SendHeaders, principal: Principal) -> Draft:
        """Raises `Invalid` for what cannot be, and `NotFound` for whom the caller cannot address."""
        recipient = await self.addressee(wanted.to, principal, "to")
        return await self.addressed(wanted, recipient, headers, principal)

    async def question(self, wanted: RouteQuestion, to: str, headers: SendHeaders, principal: Principal) -> Draft:
        """The draft of a message to this address that is not sent: nothing is counted for it."""
        recipient = await self.addressee(to, principal, "to")
        return await self.addressed(wanted, recipient, headers, principal, is_sent=False)

    async def addressed(
        self,
        wanted: Sendable,
        recipient: Agent,
        headers: SendHeaders,
        principal: Principal,
        *,
        is_sent: bool = True,
        selected: Selected | None = None,
    ) -> Draft:
        """The draft of a message to an agent that the caller may address."""
        if wanted.send_at is not None:
            refuse_too_far(wanted.send_at, self._clock.now())
        sender = await self.sender(headers, principal)
        placed = NOTHING_BEFORE
        if wanted.has_context:
            placed = await self._placed(wanted, headers, sender, recipient, principal, is_sent=is_sent)
        return Draft(
            sender=sender,
            recipient=recipient,
            sessions=await self._sessions(recipient),
            body=wanted.message or "",
            subject=wanted.subject,
            metadata=wanted.metadata,
            wish=wanted.wish(),
            context=placed.context,
            asked_priority=placed.asked_priority,
            idempotency_key=headers.idempotency_key,
            selected=selected,
        )

    async def _placed(
        self,
        wanted: Sendable,
        headers: SendHeaders,
        sender: Sender,
        recipient: Agent,
        principal: Principal,
        *,
        is_sent: bool,
    ) -> Placed:
        answered_to = None
        if wanted.reply_to_agent is not None:
            answered_to = (await self.addressee(wanted.reply_to_agent, principal, "reply_to_agent")).id
        return await self._conversation.place(
            wanted,
            sender=sender,
            recipient_id=recipient.id,
            reply_to_agent=answered_to,
            idempotency_key=headers.idempotency_key,
            principal=principal,
            is_sent=is_sent,
        )

    async def addressee(self, reference: str, principal: Principal, field: str) -> Agent:
        """One's own agent; where there is none, somebody else's who granted it. Raises `NotFound`."""
        address = parse_address(reference, field=field)
        try:
            return await self._directory.resolve(address, principal, action="agent.address")
        except NotFound:
            self._lookups.admit(principal)
            return await self._grants.addressee(address, principal)

    async def readdressed(self, message: Message, principal: Principal) -> None:
        """Raise `NotFound` where the sender of a message that is to go once more may send to its receiver no longer."""
        if not authorize(principal, "agent.address", message.agent_owner):
            await self.addressee(message.agent_id, principal, "to")

    async def sender(self, headers: SendHeaders, principal: Principal) -> Sender:
        """Who sends, by the caller's key and what the request says. Raises `NotFound`."""
        # A key bound to one agent speaks for nobody else, its owner as a whole included.
        reference = headers.from_agent if headers.from_agent is not None else principal.agent_id
        if reference is None:
            return Sender(owner=principal.owner, key_id=principal.key_id)
        address = parse_address(reference, field="X-Postroom-From-Agent")
        agent = await self._directory.resolve(address, principal, action="agent.send_as")
        return Sender(owner=agent.owner, key_id=principal.key_id, agent_id=agent.id, agent_slug=agent.slug)

    async def _sessions(self, recipient: Agent) -> tuple[LiveSession, ...]:
        if Channel.LIVE not in recipient.delivery_capabilities:
            return ()
        return await self._directory.live(recipient.id)


def refuse_too_far(send_at: datetime, now: datetime) -> None:
    """Raise `Invalid` (`out_of_range`) for an instant more than 366 days ahead."""
    if send_at - now > FURTHEST_AHEAD:
        raise Invalid("out_of_range", "send_at may be 366 days ahead.", field="send_at")


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> SendHeaders:
    """Ours among the headers. Raises `Malformed` for one sent twice, `Invalid` for a key that cannot be."""
    found: dict[str, bytes] = {}
    for name, value in headers:
        field = _FIELDS.get(name)
        if field is not None:
            if field in found:
                raise Malformed("duplicate_header", "This header may be sent once.", field=field)
            found[field] = value
    if not found:
        return NO_HEADERS
    from_agent = found.get("X-Postroom-From-Agent")
    return SendHeaders(
        idempotency_key=_idempotency_key(found.get("Idempotency-Key")),
        from_agent=None if from_agent is None else from_agent.decode("latin-1"),
        verify_echo=asks_for_echo(found.get("X-Postroom-Verify-Echo", b"")),
    )


def _idempotency_key(value: bytes | None) -> str | None:
    if value is None:
        return None
    if not _IDEMPOTENCY_KEY.match(value):
        message = "An Idempotency-Key has 1 to 255 printable ASCII characters."
        raise Invalid("invalid_idempotency_key", message, field="Idempotency-Key")
    return value.decode("ascii")
