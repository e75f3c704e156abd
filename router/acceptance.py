"""Accepting a message: decide, append, push. The sender's answer waits for the durable append and nothing else."""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from contracts import ids
from contracts.errors import Conflict, Stale, Unavailable
from contracts.events import Accepted, History, Stored
from contracts.records import Agent, Context, Decision, JsonObject, LiveSession, Message, Sender, Wish
from contracts.words import Reason, State
from router.decision import decide, first_state, reachability_matters
from router.desk import Desk, Standing
from router.execution import begin
from router.guarding import Guarded, refused
from router.guards import guard_answers, is_guarded, refusal_in
from router.selection import Selected
from router.terms import GUARDED, claim_before, rejection, time_to_live

UNDECIDED: Final = Decision(steps=(), trace=(), reason=Reason.SCHEDULED)
"""The decision of a scheduled message: it is taken when its time comes, on what is true then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message before it is accepted: everything the gateway has checked and resolved.

    `asked_priority` is the sender's word: a retry repeats it, whatever the priority counts as by then. `selected`
    is set when the recipient was chosen among those that fitted.
    """

    sender: Sender
    recipient: Agent
    sessions: tuple[LiveSession, ...]
    body: str
    subject: str | None
    metadata: JsonObject
    wish: Wish
    context: Context = Context()
    asked_priority: int = 3
    idempotency_key: str | None = None
    selected: Selected | None = None


class Acceptance(Desk):
    """The sender's side."""

    async def accept(self, draft: Draft) -> Standing:
        """Decide, append, push. Returns after the broker's durable acknowledgement and not before.

        Raises `Conflict` (`agent_inactive`, `idempotency_mismatch`), `Invalid` (`capability_not_declared`,
        `webhook_url_missing`, `webhook_disabled`), `Conflict` or `TooMany` of a guard, each with the trace;
        `Unavailable` when nothing was or may be stored.
        """
        guarded, now = await self._decide(draft, spend=True)
        decision = _after_selection(draft, guarded.decision)
        if decision.ending is State.REJECTED:
            if decision.reason in GUARDED and (before := await self._sent_before(draft, now)):
                return before
            raise rejection(decision)
        if draft.wish.send_at is not None and draft.wish.send_at > now:
            decision = _after_selection(draft, replace(UNDECIDED, trace=guard_answers(decision.trace)))
        event = self._accepted(draft, decision, now)
        ulid = event.message.id.removeprefix("msg_")
        try:
            seq = await self._ledger.append(ulid, event, expected_seq=0)
        except Stale:
            return await self._replay(ulid, event.message)
        standing = Standing(history=History(ulid=ulid, events=(Stored(seq=seq, event=event),)), execution=begin(event))
        await self._announce(standing)
        if guarded.probes:
            await self._guarding.came_through(guarded.probes)
        return standing

    async def route(self, draft: Draft) -> Decision:
        """Decide and explain, store nothing: the very decision `accept` would take now."""
        guarded, _ = await self._decide(draft, spend=False)
        return _after_selection(draft, guarded.decision)

    async def sent_under(self, owner: str, idempotency_key: str) -> Message | None:
        """What this owner sent under this key before, whatever it was."""
        history = await self._ledger.load(ids.ulid_for_key(owner, idempotency_key))
        return history.message if history else None

    async def repeated(self, draft: Draft) -> Standing | None:
        """What this very request was accepted as earlier, or None. Raises `Conflict` (`idempotency_mismatch`)."""
        return await self._sent_before(draft, self._clock.now())

    async def _decide(self, draft: Draft, *, spend: bool) -> tuple[Guarded, datetime]:
        """The guards first, then the gates; what neither refuses spends its budgets."""
        if not is_guarded(draft.sender, draft.context):
            decision, now = await self._ask_gates(draft)
            return Guarded(decision=decision), now
        passage = await self._guarding.passage(draft.sender, draft.recipient.id, draft.context)
        chain = self._guarding.chain(passage)
        if refusal_in(chain):
            return Guarded(decision=refused(chain)), self._clock.now()
        decision, now = await self._ask_gates(draft)
        return await self._guarding.around(decision, passage, chain, spend=spend), now

    async def _ask_gates(self, draft: Draft) -> tuple[Decision, datetime]:
        if not reachability_matters(draft.wish, draft.recipient):
            now = self._clock.now()
            return self._settled.decide(draft.wish, draft.recipient, now), now
        reach = await self._freshness.reachability(draft.recipient.id, draft.sessions)
        question = self._asked(draft.recipient, reach)
        return decide(draft.wish, question), question.now

    async def _sent_before(self, draft: Draft, now: datetime) -> Standing | None:
        """What this very request was accepted as earlier: a guard has nothing to say about it any more."""
        if draft.idempotency_key is None:
            return None
        message = self._accepted(draft, UNDECIDED, now).message
        ulid = message.id.removeprefix("msg_")
        return await self._replay(ulid, message) if await self._ledger.load(ulid) else None

    def _accepted(self, draft: Draft, decision: Decision, now: datetime) -> Accepted:
        key = draft.idempotency_key
        ulid = ids.ulid_for_key(draft.sender.owner, key) if key else _chosen_ulid(draft) or self._ids.ulid()
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
            expires_at=max(now, draft.wish.send_at or now) + time_to_live(draft.wish, decision),
            fingerprint=_fingerprint(draft) if key else "",
            idempotent=key is not None,
            context=draft.context,
        )
        offered = bool(decision.steps) and first_state(decision) is State.OFFERED
        return Accepted(
            at=now,
            by=f"key:{draft.sender.key_id}",
            message=message,
            decision=decision,
            claim_before=claim_before(message.wish, draft.recipient, now, message.expires_at) if offered else None,
            max_attempts=self._first_attempts(decision),
        )

    async def _replay(self, ulid: str, attempted: Message) -> Standing:
        """The subject is taken: by this very request, or by another one under the same key."""
        standing = await self._load(ulid)
        if not attempted.idempotent:
            raise Unavailable("id_collision", "Please send again.")
        if standing.history.message.fingerprint != attempted.fingerprint:
            raise Conflict("idempotency_mismatch", "This Idempotency-Key was used with another message.")
        return replace(standing, replayed=True)


def _after_selection(draft: Draft, decision: Decision) -> Decision:
    """How the recipient came to be chosen is told before everything that was asked of it."""
    if draft.selected is None or draft.selected.gate is None:
        return decision
    return replace(decision, trace=(draft.selected.gate, *decision.trace))


def _chosen_ulid(draft: Draft) -> str | None:
    return draft.selected.ulid if draft.selected else None


def _fingerprint(draft: Draft) -> str:
    """The hash of everything a retry under the same key must repeat."""
    wish, context, selected = draft.wish, draft.context, draft.selected
    parts = [
        # Whom the sender named, and not who was chosen: a retry may find others there.
        draft.recipient.id if selected is None else selected.ask.view,
        draft.sender.agent_id,
        draft.body,
        draft.subject,
        draft.metadata,
        [wish.delivery_mode, wish.fallback.value, wish.claim_window_s, wish.ttl_s, wish.verification.value],
        wish.send_at and wish.send_at.isoformat(),
        [context.reply_to, context.correlation_id, context.expects_reply, context.reply_to_agent, draft.asked_priority],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
