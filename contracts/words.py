"""The vocabulary: every closed set of words that crosses a program's border, once.

A value here is wire format: it is stored in the ledger, shown in traces and counted in metrics, so it never changes
its meaning. A new word is added at the end of its set.
"""

from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Final


class Word(StrEnum):
    """A string enum whose `value` is read in C: every answer holds dozens, an enum's own way is slower."""

    if not TYPE_CHECKING:  # a type checker takes the assignment for a member
        value = property(attrgetter("_value_"))


class Channel(Word):
    """The four ways an agent can be reached. The order is the order in which `auto` tries them (design, section 3)."""

    LIVE = "live"
    BG = "bg"
    WEBHOOK = "webhook"
    INBOX = "inbox"


AUTO: Final = "auto"
DELIVERY_MODES: Final[tuple[str, ...]] = (*Channel, AUTO)


class FallbackMode(Word):
    """What happens when a live attempt comes to nothing."""

    BACKGROUND = "background"
    NONE = "none"
    LIVE_ONLY = "live_only"


FALLBACK_ALIASES: Final[dict[str, FallbackMode]] = {"fallback_to_background": FallbackMode.BACKGROUND}


class EffectiveMode(Word):
    """The way the server used, as the sender reads it."""

    LIVE = "live"
    BG = "bg"
    INBOX = "inbox"
    WEBHOOK = "webhook"
    BACKGROUND_FALLBACK = "background_fallback"


class DeliveryRoute(Word):
    """How an outcome came about."""

    LIVE = "live"
    LIVE_UNVERIFIED = "live_unverified"
    BACKGROUND_DIRECT = "background_direct"
    BACKGROUND_FALLBACK = "background_fallback"
    INBOX = "inbox"
    WEBHOOK = "webhook"


class State(Word):
    """Where an execution stands. Everything from `DELIVERED` on is terminal."""

    SCHEDULED = "scheduled"
    WAITING = "waiting"
    OFFERED = "offered"
    CLAIMED = "claimed"
    QUEUED = "queued"
    LEASED = "leased"
    IN_INBOX = "in_inbox"
    INBOX_DELIVERED = "inbox_delivered"
    INBOX_READ = "inbox_read"

    DELIVERED = "delivered"
    LIVE_UNCLAIMED_NO_FALLBACK = "live_unclaimed_no_fallback"
    LIVE_UNCLAIMED_STALE_HEARTBEAT = "live_unclaimed_stale_heartbeat"
    LIVE_UNCLAIMED_NO_SESSION = "live_unclaimed_no_session"
    BG_EXHAUSTED = "bg_exhausted"
    WEBHOOK_EXHAUSTED = "webhook_exhausted"
    EXPIRED_UNREAD = "expired_unread"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    OUTCOME_MISSING = "outcome_missing"
    REJECTED = "rejected"
    DEAD_LETTER = "dead_letter"
    DISCARDED = "discarded"


OPEN_STATES: Final = frozenset(
    {
        State.SCHEDULED,
        State.WAITING,
        State.OFFERED,
        State.CLAIMED,
        State.QUEUED,
        State.LEASED,
        State.IN_INBOX,
        State.INBOX_DELIVERED,
        State.INBOX_READ,
    }
)
INBOX_STATES: Final = frozenset({State.IN_INBOX, State.INBOX_DELIVERED, State.INBOX_READ})
TERMINAL_STATES: Final = frozenset(State) - OPEN_STATES
DEAD_LETTER_STATES: Final = frozenset(
    {
        State.LIVE_UNCLAIMED_NO_FALLBACK,
        State.LIVE_UNCLAIMED_STALE_HEARTBEAT,
        State.LIVE_UNCLAIMED_NO_SESSION,
        State.BG_EXHAUSTED,
        State.WEBHOOK_EXHAUSTED,
        State.EXPIRED_UNREAD,
        State.EXPIRED,
        State.OUTCOME_MISSING,
        State.REJECTED,
        State.DEAD_LETTER,
    }
)
"""Ends at which we gave up: the receiver never had the message, or nobody knows what came of it."""
SETTLED_STATES: Final = frozenset({State.DELIVERED, State.CANCELLED, State.DISCARDED})
"""Ends somebody meant: the receiver answered, be it with a failure; the sender or an operator said that it is over."""


class Verdict(Word):
    """A gate's answer. `WAIT` lets the channel be chosen, and says that the message will wait for something."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    WAIT = "wait"
    FAIL = "fail"


class Gate(Word):
    """The yes/no questions of the router, by the name that trace, metric and log share."""

    AGENT_ACTIVE = "agent_active"
    CAPABILITY = "capability"
    SESSION_ATTACHED = "session_attached"
    HEARTBEAT_FRESH = "heartbeat_fresh"
    HOST_FRESH = "host_fresh"
    WEBHOOK_CONFIGURED = "webhook_configured"
    CLAIM_WINDOW = "claim_window"
    FALLBACK = "fallback"
    PUSH_PATH = "push_path"
    HOP_LIMIT = "hop_limit"
    CYCLE = "cycle"
    AUTO_REPLY = "auto_reply"
    SENDER_BUDGET = "sender_budget"
    PAIR_BUDGET = "pair_budget"
    THREAD_BUDGET = "thread_budget"
    SELECTION = "selection"


class Reason(Word):
    """Why a gate said what it said, or why an execution ended. Stable: dashboards and senders match on them."""

    OK = "ok"
    AGENT_INACTIVE = "agent_inactive"
    CAPABILITY_NOT_DECLARED = "capability_not_declared"
    NO_SESSION_ATTACHED = "no_session_attached"
    HEARTBEAT_MISSING = "heartbeat_missing"
    HEARTBEAT_STALE = "heartbeat_stale"
    HEARTBEAT_UNKNOWN = "heartbeat_unknown"
    HOST_NEVER_SEEN = "host_never_seen"
    HOST_STALE = "host_stale"
    HOST_UNKNOWN = "host_unknown"
    WEBHOOK_URL_MISSING = "webhook_url_missing"
    WEBHOOK_DISABLED = "webhook_disabled"
    CLAIM_WINDOW_CLOSED = "claim_window_closed"
    FALLBACK_DISABLED = "fallback_disabled"
    FALLBACK_NOT_DECLARED = "fallback_not_declared"
    WAITS_FOR_SESSION = "waits_for_session"
    SCHEDULED = "scheduled"

    OUTCOME_REPORTED = "outcome_reported"
    ACKNOWLEDGED = "acknowledged"
    RECEIVER_ANSWERED = "receiver_answered"
    CANCELLED_BY_SENDER = "cancelled_by_sender"
    TTL_PASSED = "ttl_passed"
    OUTCOME_DEADLINE_PASSED = "outcome_deadline_passed"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    LEASE_EXPIRED = "lease_expired"
    ATTEMPT_FAILED = "attempt_failed"
    RECEIVER_GONE = "receiver_gone"
    RECEIVER_FAILING = "receiver_failing"

    UNREACHABLE = "unreachable"
    ECHO_MISSING = "echo_missing"

    HOP_LIMIT_EXCEEDED = "hop_limit_exceeded"
    CYCLE_DETECTED = "cycle_detected"
    AUTO_REPLY_TO_AUTO_REPLY = "auto_reply_to_auto_reply"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    PAIR_BUDGET_EXHAUSTED = "pair_budget_exhausted"
    THREAD_BUDGET_EXHAUSTED = "thread_budget_exhausted"
    BUDGET_UNKNOWN = "budget_unknown"

    DISCARDED_BY_RECEIVER = "discarded_by_receiver"

    CHOSEN = "chosen"


class AttestationLevel(Word):
    """How strongly a live claim proved that it came from the real session (design, decision 7)."""

    TOKEN = "token"  # noqa: S105 - a level's name
    TOKEN_NONCE = "token+nonce"  # noqa: S105 - a level's name


class VerificationMode(Word):
    """What an outcome has to bring before a success counts as verified."""

    NONE = "none"
    REQUIRE_EXTERNAL_ID = "require_external_id"
    REQUIRE_RESULT_URL = "require_result_url"
    REQUIRE_ARTIFACTS = "require_artifacts"
    MANUAL = "manual"


class OutcomeState(Word):
    """How far a reported outcome is to be believed."""

    REPORTED_SUCCESS = "reported_success"
    REPORTED_FAILURE = "reported_failure"
    VERIFICATION_PENDING = "verification_pending"
    VERIFIED_SUCCESS = "verified_success"
    VERIFICATION_FAILED = "verification_failed"


class WorkStyle(Word):
    """The profile's axis: how the agent works, never a routing decision."""

    SYNC = "sync"
    ASYNC = "async"


class StatedPresence(Word):
    """What somebody said of an agent's presence. Nothing is routed by it: that is what heartbeats are for."""

    ONLINE = "online"
    AWAY = "away"
    OFFLINE = "offline"


class AgentStatus(Word):
    ACTIVE = "active"
    INACTIVE = "inactive"


class SessionStatus(Word):
    """Where a session stands. `STALE` and `DISCONNECTED` are final: whoever comes back registers anew."""

    CONNECTED = "connected"
    STALE = "stale"
    DISCONNECTED = "disconnected"


class PresenceWord(Word):
    """What an agent's sessions make of it: computed when it is asked for, stored nowhere on the agent."""

    ONLINE = "online"
    STALE = "stale"
    OFFLINE = "offline"


class AccountStatus(Word):
    """`DISABLED`: the account's keys do not count, and nothing new is claimed for it."""

    ACTIVE = "active"
    DISABLED = "disabled"


class Scope(Word):
    """What a key may be limited to. A key without limits may do whatever its owner may."""

    MESSAGES_SEND = "messages:send"
    MESSAGES_READ = "messages:read"
    AGENTS_READ = "agents:read"
    AGENTS_MANAGE = "agents:manage"
    SESSIONS_ATTACH = "sessions:attach"
    EXECUTIONS_CLAIM = "executions:claim"
    EXECUTIONS_READ = "executions:read"
    CUES_MANAGE = "cues:manage"
    ACCOUNTS_MANAGE = "accounts:manage"
    KEYS_MANAGE = "keys:manage"
    MOBS_MANAGE = "mobs:manage"
    AUDIT_READ = "audit:read"
