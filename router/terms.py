"""The terms of an acceptance: how long a message may take, how long an offer stands, and what refuses it. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from contracts.errors import Conflict, Invalid, TooMany
from contracts.records import Agent, Decision, Wish
from contracts.words import Channel, Reason
from router.channels import ALL
from router.channels.rules import MONTH
from router.explain import trace_view


def time_to_live(wish: Wish, decision: Decision) -> timedelta:
    """The sender's wish, else an hour where only a session may deliver, else a month."""
    if wish.ttl_s is not None:
        return timedelta(seconds=wish.ttl_s)
    channels = {step.channel for step in decision.steps}
    return ALL[Channel.LIVE].ttl if channels == {Channel.LIVE} else MONTH


def claim_before(wish: Wish, agent: Agent, now: datetime, expires_at: datetime) -> datetime:
    """When the window of an offer made now closes; never after the end of the execution it belongs to."""
    window_s = wish.claim_window_s or agent.claim_window_s
    return min(now + timedelta(seconds=window_s), expires_at)


GUARDED: Final[Mapping[Reason, tuple[type[Conflict] | type[TooMany], str]]] = {
    Reason.HOP_LIMIT_EXCEEDED: (Conflict, "Too many messages of agents, each answering the other, led to this one."),
    Reason.CYCLE_DETECTED: (Conflict, "The same agents pass this on in the same order again and again."),
    Reason.AUTO_REPLY_TO_AUTO_REPLY: (Conflict, "An automatic reply is not answered automatically."),
    Reason.RATE_LIMIT_EXCEEDED: (TooMany, "This agent sends faster than it may."),
    Reason.PAIR_BUDGET_EXHAUSTED: (TooMany, "This agent sends to that one faster than it may."),
    Reason.THREAD_BUDGET_EXHAUSTED: (TooMany, "This thread grows faster than it may."),
}
"""What each guard's "no" is to the sender."""


def rejection(decision: Decision) -> Conflict | Invalid | TooMany:
    """The error for a decision that refuses the message before it is accepted."""
    trace = trace_view(decision.trace)
    if decision.reason in GUARDED:
        kind, sentence = GUARDED[decision.reason]
        last = decision.trace[-1].facts
        wait = {name: last[name] for name in ("retry_after_s",) if name in last}
        return kind(decision.reason.value, sentence, trace=trace, **wait)
    if decision.reason is Reason.AGENT_INACTIVE:
        return Conflict("agent_inactive", "This agent takes no messages at present.", trace=trace)
    messages = {
        Reason.CAPABILITY_NOT_DECLARED: "The agent does not declare this channel.",
        Reason.WEBHOOK_URL_MISSING: "The agent has no webhook URL.",
        Reason.WEBHOOK_DISABLED: "The agent's webhook is disabled; its owner has to enable it, or to set its URL anew.",
    }
    return Invalid(decision.reason.value, messages.get(decision.reason, "The message cannot be routed."), trace=trace)
