"""A sender's request becomes a draft: who sends, to whom, what, and under which Idempotency-Key."""

import re
from collections.abc import Sequence
from typing import Final

from contracts.errors import Invalid, Malformed
from contracts.records import Agent, LiveSession, Principal, Sender
from contracts.words import Channel
from gateway.address import parse_address
from gateway.directory import Directory
from gateway.schemas_messages import NewMessage, RouteQuestion
from router.service import Draft

FROM_AGENT_HEADERS: Final = (b"x-postroom-from-agent", b"x-cueapi-from-agent")
_IDEMPOTENCY_KEY: Final = re.compile(rb"[\x20-\x7e]{1,255}\Z")

Headers = Sequence[tuple[bytes, bytes]]


class Intake:
    """Makes drafts. Every lookup is answered from the directory's memory."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def draft(self, wanted: NewMessage | RouteQuestion, headers: Headers, principal: Principal) -> Draft:
        """Raises `Invalid` for what cannot be, and `NotFound` for whom the caller cannot address."""
        key = idempotency_key(headers)
        recipient = await self._directory.find(wanted.to, principal, action="agent.address")
        return Draft(
            sender=await self._sender(headers, principal),
            recipient=recipient,
            sessions=await self._sessions(recipient),
            body=wanted.message or "",
            subject=wanted.subject,
            metadata=wanted.metadata,
            wish=wanted.wish(),
            idempotency_key=key,
        )

    async def _sender(self, headers: Headers, principal: Principal) -> Sender:
        reference = from_agent(headers)
        if reference is None:
            return Sender(owner=principal.owner, key_id=principal.key_id)
        address = parse_address(reference, field="X-Postroom-From-Agent")
        agent = await self._directory.resolve(address, principal, action="agent.send_as")
        return Sender(owner=agent.owner, key_id=principal.key_id, agent_id=agent.id)

    async def _sessions(self, recipient: Agent) -> tuple[LiveSession, ...]:
        if Channel.LIVE not in recipient.delivery_capabilities:
            return ()
        return await self._directory.attached(recipient.id)


def idempotency_key(headers: Headers) -> str | None:
    """The Idempotency-Key, or None without one. Raises `Malformed` for two, `Invalid` for one that cannot be."""
    value = _only(headers, (b"idempotency-key",), "Idempotency-Key")
    if value is None:
        return None
    if not _IDEMPOTENCY_KEY.match(value):
        message = "An Idempotency-Key has 1 to 255 printable ASCII characters."
        raise Invalid("invalid_idempotency_key", message, field="Idempotency-Key")
    return value.decode("ascii")


def from_agent(headers: Headers) -> str | None:
    value = _only(headers, FROM_AGENT_HEADERS, "X-Postroom-From-Agent")
    return None if value is None else value.decode("latin-1")


def _only(headers: Headers, names: tuple[bytes, ...], field: str) -> bytes | None:
    found = [value for name, value in headers if name in names]
    if len(found) > 1:
        raise Malformed("duplicate_header", "This header may be sent once.", field=field)
    return found[0] if found else None
