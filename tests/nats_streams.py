"""Builders for tests against a broker: provisioned streams of one's own, events with good defaults, patience."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio

from contracts.events import Accepted, Ended
from contracts.records import Decision, GateResult, Message, Sender, Step, Wish
from contracts.subjects import Names
from contracts.words import Channel, EffectiveMode, Gate, Reason, State, Verdict
from infra.nats_connection import Broker, Patience
from infra.provision import StreamSettings, provision

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SMALL = StreamSettings(ledger_max_bytes=32 * 1024**2, directory_max_bytes=8 * 1024**2, events_max_bytes=8 * 1024**2)
HASTY = Patience(reconnect_wait_s=0.02, reconnect_wait_max_s=0.1)


@asynccontextmanager
async def connected(url: str, *, name: str = "test") -> AsyncIterator[Broker]:
    async with Broker.open(url, name=name, patience=HASTY) as broker:
        yield broker


@asynccontextmanager
async def provisioned(url: str, prefix: str) -> AsyncIterator[tuple[Broker, Names]]:
    """A connection and the names of streams that are there and empty."""
    names = Names(prefix=prefix)
    async with connected(url) as broker:
        await provision(broker, names, SMALL)
        yield broker, names


async def until(is_true: Callable[[], bool], *, within_s: float = 10.0) -> None:
    with anyio.fail_after(within_s):
        while not is_true():
            await anyio.sleep(0.01)


def accepted(ulid: str, *, body: str = "hello", by: str = "key:k1") -> Accepted:
    message = Message(
        id=f"msg_{ulid}",
        sender=Sender(owner="max", key_id="k1"),
        agent_id="agent_abcdefghijkl",
        agent_owner="max",
        agent_slug="helper",
        body=body,
        subject=None,
        metadata={"empty": None, "n": 1.5},
        wish=Wish(channel=Channel.INBOX),
        accepted_at=NOW,
        expires_at=NOW + timedelta(days=1),
        fingerprint="0" * 64,
    )
    trace = (
        GateResult(
            gate=Gate.CAPABILITY,
            channel=Channel.INBOX,
            verdict=Verdict.PASS,
            reason=Reason.OK,
            facts={"declared": True},
        ),
    )
    step = Step(channel=Channel.INBOX, mode=EffectiveMode.INBOX)
    return Accepted(at=NOW, by=by, message=message, decision=Decision(steps=(step,), trace=trace))


def ended(*, by: str = "key:k1") -> Ended:
    return Ended(at=NOW, by=by, state=State.CANCELLED, reason=Reason.CANCELLED_BY_SENDER)


def another(event: Accepted, body: str) -> Accepted:
    """The same acceptance with another body."""
    return replace(event, message=replace(event.message, body=body))
