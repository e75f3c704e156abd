"""The receipts of a message: how far it got and when, read off its events. Pure.

    accepted ─▶ scheduled ─▶ routed ─▶ offered ─▶ claimed ─▶ in_context ─▶ outcome | ended
                                │         └─▶ fell_back ─▶ …
                                ├─▶ leased ─▶ in_context (bg; once per attempt)
                                ├─▶ leased (webhook; once per attempt)
                                └─▶ handed_out ─▶ read (inbox)

A receipt says what is known and nothing more: an offer is `offered` whether or not a session has heard of it, and what
a poll gave out is `handed_out` until its receiver says that it was read. `in_context` and `read` are the receiver's own
statements that it has the message before it: of a claim or a lease the one, of an inbox the other.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

from contracts.events import (
    Accepted,
    Claimed,
    Discarded,
    Ended,
    Event,
    FellBack,
    History,
    InboxMarked,
    InContext,
    Leased,
    Offered,
    OutcomeRecorded,
    Released,
    Replayed,
)
from contracts.records import Decision
from contracts.words import Channel, State
from router.decision import first_state
from router.explain import View, instant

Receipt = View
Tell = Callable[[Any, Channel | None], Iterator[tuple[str, Channel | None, View]]]

STAGES: Final = (
    "accepted",
    "scheduled",
    "routed",
    "offered",
    "fell_back",
    "claimed",
    "leased",
    "handed_out",
    "in_context",
    "read",
    "outcome",
    "ended",
    "discarded",
)


def receipts(history: History) -> list[Receipt]:
    """`{stage, at, channel, execution, detail}`, oldest first; `channel` is null before one was chosen."""
    told: list[Receipt] = []
    channel: Channel | None = None
    for stored in history.events:
        event = stored.event
        if isinstance(event, Replayed):
            channel = None
        for stage, at_channel, detail in _told_by(event, channel):
            told.append(_receipt(stage, event, at_channel, detail))
            channel = at_channel
    return told


def first_at(told: list[Receipt], stage: str) -> str | None:
    """When the newest execution first reached a stage; None when it has not."""
    execution = told[-1]["execution"]
    return next((each["at"] for each in told if each["stage"] == stage and each["execution"] == execution), None)


def _told_by(event: Event, channel: Channel | None) -> Iterator[tuple[str, Channel | None, View]]:
    tell = _TELL.get(type(event))
    return tell(event, channel) if tell else iter(())


def _receipt(stage: str, event: Event, channel: Channel | None, detail: View) -> Receipt:
    return {
        "stage": stage,
        "at": instant(event.at),
        "channel": channel.value if channel else None,
        "execution": event.execution,
        "detail": detail,
    }


def _accepted(event: Accepted, channel: Channel | None) -> Iterator[tuple[str, Channel | None, View]]:
    yield "accepted", None, {"delivery_mode": event.message.wish.delivery_mode}
    if first_state(event.decision) is State.SCHEDULED:
        yield "scheduled", None, {"send_at": instant(event.message.wish.send_at)}
    else:
        yield from _decided(event.decision, event.claim_before)


def _routed(event: Released | Replayed, channel: Channel | None) -> Iterator[tuple[str, Channel | None, View]]:
    yield from _decided(event.decision, event.claim_before)


def _decided(decision: Decision, window: datetime | None) -> Iterator[tuple[str, Channel | None, View]]:
    if decision.ending is not None:
        yield "ended", None, {"state": decision.ending.value, "reason": decision.reason.value}
        return
    step = decision.steps[0]
    yield "routed", step.channel, {"mode": step.mode.value}
    if first_state(decision) is State.OFFERED:
        yield "offered", step.channel, {"claim_before": instant(window)}


def _offered(event: Offered, channel: Channel | None) -> Iterator[tuple[str, Channel | None, View]]:
    yield "offered", channel, {"claim_before": instant(event.claim_before)}


def _fell_back(event: FellBack, channel: Channel | None) -> Iterator[tuple[str, Channel | None, View]]:
    yield "fell_back", event.step.channel, {"mode": event.step.mode.value}


def _claimed(event: Claimed, channel: Channel | None) -> Iterator[tuple[str, Channel | None, View]]:
    yield "claimed", channel, {"label": event.claim.label, "level": event.claim.level.value}


def _leased(event: Leased, channel: Channel | None) -> Iterator[tuple[str, Channel | None, View]]:
    yield "leased", channel, {"number": event.lease.number, "holder": event.lease.holder}


def _in_context(event: InContext, channel: Channel | None) -> Iterator[tuple[str, Channel | None, View]]:
    yield "in_context", channel, {"lease": event.lease}


def _marked(event: InboxMarked, channel: Channel | None) -> Iterator[tuple[str, Channel | None, View]]:
    yield ("read" if event.state is State.INBOX_READ else "handed_out"), channel, {}


def _reported(event: OutcomeRecorded, channel: Channel | None) -> Iterator[tuple[str, Channel | None, View]]:
    yield "outcome", channel, {"success": event.outcome.success, "reason": event.reason.value}


def _ended(event: Ended, channel: Channel | None) -> Iterator[tuple[str, Channel | None, View]]:
    yield "ended", channel, {"state": event.state.value, "reason": event.reason.value}


def _discarded(event: Discarded, channel: Channel | None) -> Iterator[tuple[str, Channel | None, View]]:
    yield "discarded", channel, {"reason": event.reason}


_TELL: Final[dict[type[Any], Tell]] = {
    Accepted: _accepted,
    Released: _routed,
    Replayed: _routed,
    Offered: _offered,
    FellBack: _fell_back,
    Claimed: _claimed,
    Leased: _leased,
    InContext: _in_context,
    InboxMarked: _marked,
    OutcomeRecorded: _reported,
    Ended: _ended,
    Discarded: _discarded,
}
