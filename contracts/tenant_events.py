"""What an owner is told: the events of its log, as records, and the closed set of their types.

A record has the attributes of CloudEvents 1.0. Those about messages are derived from the ledger, digests from the log
itself; those about agents, sessions, keys, subscriptions and guards are written by whoever made the change.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from contracts.records import JsonObject
from contracts.words import Word


class EventType(Word):
    """What can happen to something of an owner. `DERIVED` are the ones that come out of the ledger."""

    MESSAGE_ACCEPTED = "message.accepted"
    MESSAGE_RELEASED = "message.released"
    MESSAGE_REPLAYED = "message.replayed"
    MESSAGE_DELIVERED = "message.delivered"
    MESSAGE_READ = "message.read"
    MESSAGE_DIGEST = "message.digest"
    MESSAGE_DEAD_LETTERED = "message.dead_lettered"
    MESSAGE_DISCARDED = "message.discarded"
    EXECUTION_OFFERED = "execution.offered"
    EXECUTION_CLAIMED = "execution.claimed"
    EXECUTION_FELL_BACK = "execution.fell_back"
    EXECUTION_LEASED = "execution.leased"
    EXECUTION_IN_CONTEXT = "execution.in_context"
    EXECUTION_ATTEMPT_FAILED = "execution.attempt_failed"
    EXECUTION_OUTCOME = "execution.outcome"
    EXECUTION_OUTCOME_CHANGED = "execution.outcome_changed"
    EXECUTION_ENDED = "execution.ended"

    AGENT_CREATED = "agent.created"
    AGENT_UPDATED = "agent.updated"
    AGENT_DELETED = "agent.deleted"
    SESSION_ATTACHED = "session.attached"
    SESSION_DETACHED = "session.detached"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    SUBSCRIPTION_CREATED = "subscription.created"
    SUBSCRIPTION_DELETED = "subscription.deleted"
    SUBSCRIPTION_PAUSED = "subscription.paused"
    GUARD_TRIPPED = "guard.tripped"
    CUE_FIRED = "cue.fired"
    CUE_MISSED = "cue.missed"
    CUE_FAILED = "cue.failed"
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_ENABLED = "webhook.enabled"
    SESSION_STALE = "session.stale"
    JOB_TOLD = "job.told"
    AGENT_PRESENCE = "agent.presence"
    ACCOUNT_CREATED = "service_account.created"
    ACCOUNT_UPDATED = "service_account.updated"
    ACCOUNT_DELETED = "service_account.deleted"


DERIVED_FAMILIES: Final = ("message", "execution")
"""The first words of the types that are derived from the ledger, and of no others."""

ANY_TYPE: Final = "*"
NOBODY: Final = "_"
"""Stands for the agent in the subject of an event that concerns none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantEvent:
    """One event of one owner's log.

    `id` is the same whenever the event is derived again, and the same in the logs of both owners concerned. `subject`
    is the id of the thing it is about; `agent_id` the receiving agent, or the agent it is about. `ledger_seq` is the
    ledger's event it was derived from, None for what does not come out of the ledger.
    """

    id: str
    type: EventType
    owner: str
    agent_id: str | None
    subject: str
    time: datetime
    data: JsonObject
    ledger_seq: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event with its place in the log: `seq` is assigned when it is appended, so nothing ever appears before it.

    `attributes` are its CloudEvents attributes, `data` among them, as JSON values.
    """

    seq: int
    attributes: dict[str, Any]

    @property
    def type(self) -> str:
        found: str = self.attributes["type"]
        return found

    @property
    def data(self) -> JsonObject:
        found: JsonObject = self.attributes["data"]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Events in order, and whether the log holds more behind them."""

    events: tuple[StoredEvent, ...]
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Whose events: an owner's, on request those that concern one agent, on request of one type or family.

    A family is `message.*`: every type that begins so.
    """

    owner: str
    agent_id: str | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlace:
    """Where a writer goes on: the log's last sequence, and the ledger's sequence its newest derived record is from."""

    last_seq: int
    ledger_seq: int
