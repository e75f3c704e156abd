"""Accepting a message: decide, append, push. The sender's answer waits for the durable append and nothing else."""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from contracts import ids
from contracts.errors import Conflict, Invalid, Stale, Unavailable
from contracts.events import Accepted, History, Stored
from contracts.records import Agent, Decision, JsonObject, LiveSession, Message, Reachability, Sender, Wish
from contracts.words import Channel, Reason, State
from router.channels import ALL
from router.channels.rules import MONTH
from router.decision import decide, first_state, reachability_matters
from router.desk import Desk, Standing, claim_before
from router.execution import begin
from router.explain import trace_view
from router.gates import Question

NOTHING_KNOWN: Final = Reachability()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message before it is accepted: everything the gateway has checked and resolved."""

    sender: Sender
    recipient: Agent
    sessions: tuple[LiveSession, ...]
    body: str
    subject: str | None
    metadata: JsonObject
    wish: Wish
    idempotency_key: str | None = None


class Acceptance(Desk):
    """The sender's side."""

    async def accept(self, draft: Draft) -> Standing:
        """Decide, append, push. Returns after the broker's durable acknowledgement and not before.

        Raises `Conflict` (`agent_inactive`, `idempotency_mismatch`), `Invalid` (`capability_not_declared`,
        `webhook_url_missing`, `webhook_disabled`) with the trace, `Unavailable` when nothing was or may be stored.
        """
        decision, now = await self._decide(draft)
        if decision.ending is State.REJECTED:
            raise _rejection(decision)
        event = self._accepted(draft, decision, now)
        ulid = event.message.id.removeprefix("msg_")
        try:
            seq = await self._ledger.append(ulid, event, expected_seq=0)
        except Stale:
            return await self._replay(ulid, event.message)
        standing = Standing(history=History(ulid=ulid, events=(Stored(seq=seq, event=event),)), execution=begin(event))
        await self._announce(standing)
        return standing

    async def route(self, draft: Draft) -> Decision:
        """Decide and explain, store nothing: the very decision `accept` would take now."""
        decision, _ = await self._decide(draft)
        return decision

    async def _decide(self, draft: Draft) -> tuple[Decision, datetime]:
        reach = NOTHING_KNOWN
        if reachability_matters(draft.wish, draft.recipient):
            reach = await self._freshness.reachability(draft.recipient.id, draft.sessions)
        now = self._clock.now()
        return decide(draft.wish, Question(recipient=draft.recipient, reach=reach, now=now)), now

    def _accepted(self, draft: Draft, decision: Decision, now: datetime) -> Accepted:
        key = draft.idempotency_key
        ulid = ids.ulid_for_key(draft.sender.owner, key) if key else self._ids.ulid()
        message = Message(
            id=ids.message_id(ulid),
            sender=draft.sender,
            agent_id=draft.recipient.id,
            agent_owner=draft.recipient.owner,
            agent_slug=draft.recipient.slug,
            body=draft.body,
            subject=draft.subject,
            metadata=draft.metadata,
            wish=draft.wish,
            accepted_at=now,
            expires_at=now + _time_to_live(draft.wish, decision),
            fingerprint=_fingerprint(draft) if key else "",
            idempotent=key is not None,
        )
        offered = first_state(decision) is State.OFFERED
        return Accepted(
            at=now,
            by=f"key:{draft.sender.key_id}",
            message=message,
            decision=decision,
            claim_before=claim_before(message, draft.recipient, now) if offered else None,
            max_attempts=self._max_attempts(decision.steps[0].channel) if decision.steps else 1,
        )

    async def _replay(self, ulid: str, attempted: Message) -> Standing:
        """The subject is taken: by this very request, or by another one under the same key."""
        standing = await self._load(ulid)
        if not attempted.idempotent:
            raise Unavailable("id_collision", "Please send again.")
        if standing.history.message.fingerprint != attempted.fingerprint:
            raise Conflict("idempotency_mismatch", "This Idempotency-Key was used with another message.")
        return replace(standing, replayed=True)


def _time_to_live(wish: Wish, decision: Decision) -> timedelta:
    if wish.ttl_s is not None:
        return timedelta(seconds=wish.ttl_s)
    channels = {step.channel for step in decision.steps}
    return ALL[Channel.LIVE].ttl if channels == {Channel.LIVE} else MONTH


def _fingerprint(draft: Draft) -> str:
    """The hash of everything a retry under the same key must repeat."""
    wish = draft.wish
    parts = [
        draft.recipient.id,
        draft.sender.agent_id,
        draft.body,
        draft.subject,
        draft.metadata,
        [wish.delivery_mode, wish.fallback.value, wish.claim_window_s, wish.ttl_s],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _rejection(decision: Decision) -> Conflict | Invalid:
    trace = trace_view(decision.trace)
    if decision.reason is Reason.AGENT_INACTIVE:
        return Conflict("agent_inactive", "This agent takes no messages at present.", trace=trace)
    messages = {
        Reason.CAPABILITY_NOT_DECLARED: "The agent does not declare this channel.",
        Reason.WEBHOOK_URL_MISSING: "The agent has no webhook URL.",
        Reason.WEBHOOK_DISABLED: "The agent's webhook receiver is gone; its URL has to be set anew.",
    }
    return Invalid(decision.reason.value, messages.get(decision.reason, "The message cannot be routed."), trace=trace)
