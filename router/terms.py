"""The terms of an acceptance: how long a message may take, how long an offer stands, and what refuses it. Pure."""

from datetime import datetime, timedelta

from contracts.errors import Conflict, Invalid
from contracts.records import Agent, Decision, Message, Wish
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


def claim_before(message: Message, agent: Agent, now: datetime) -> datetime:
    """When the window of an offer made now closes; never after the message's own end."""
    window_s = message.wish.claim_window_s or agent.claim_window_s
    return min(now + timedelta(seconds=window_s), message.expires_at)


def rejection(decision: Decision) -> Conflict | Invalid:
    """The error for a decision that refuses the message before it is accepted."""
    trace = trace_view(decision.trace)
    if decision.reason is Reason.AGENT_INACTIVE:
        return Conflict("agent_inactive", "This agent takes no messages at present.", trace=trace)
    messages = {
        Reason.CAPABILITY_NOT_DECLARED: "The agent does not declare this channel.",
        Reason.WEBHOOK_URL_MISSING: "The agent has no webhook URL.",
        Reason.WEBHOOK_DISABLED: "The agent's webhook receiver is gone; its URL has to be set anew.",
    }
    return Invalid(decision.reason.value, messages.get(decision.reason, "The message cannot be routed."), trace=trace)
