"""Fan-out: how long until each of many readers of one owner's event stream has an event, and whether all have all.

    POST ─▶ ledger ─▶ router ─▶ event log ─▶ gateway ─▶ reader 1 … reader 100

A reader that misses an event, has it twice, out of order, or with other words than its neighbours, is a failure.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Final

import anyio

from cli.benchmark.exchanges import Exchange
from cli.benchmark.open_loop import run_open
from cli.benchmark.sse_connection import SseConnection
from cli.benchmark.tally import Tally

OPEN_WITHIN_S: Final = 20.0
CAUGHT_UP_WITHIN_S: Final = 60.0
ARRIVED_WITHIN_S: Final = 20.0
PLACE_TAKEN: Final = "stream status 429"
RETRY_S: Final = 0.05
LOOK_EVERY_S: Final = 0.01
"""Arrivals are stamped when they arrive; how often one looks whether they are complete changes no latency."""

Told = tuple[str, str]
"""An event's type and the message it is about."""


class Chronicle:
    """What the readers were told, event by event: the words of whoever had it first are those all others must have."""

    def __init__(self) -> None:
        self._frames: dict[int, bytes] = {}
        self.told: dict[int, Told] = {}
        self.differing = 0

    def note(self, frame: bytes) -> int:
        """The event's sequence."""
        seq = int(frame[len(b"id: ") : frame.index(b"\n")])
        first = self._frames.setdefault(seq, frame)
        if first is frame:
            event = json.loads(frame.partition(b"\ndata: ")[2])
            self.told[seq] = event["type"], event["subject"]
        elif first != frame:
            self.differing += 1
        return seq

    def about(self, message_ids: Container[str], types: Container[str]) -> set[int]:
        """The sequences of the events of these types about these messages."""
        return {seq for seq, (kind, subject) in self.told.items() if subject in message_ids and kind in types}


class Reader:
    """One reader: every event it was given and when, in the order of arrival."""

    def __init__(self, chronicle: Chronicle) -> None:
        self._chronicle = chronicle
        self.seqs: list[int] = []
        self.arrived_s: list[float] = []
        self.is_open = False
        self.fault: str | None = None

    def on_frame(self, frame: bytes) -> None:
        if b"\nevent: " in frame:
            self.arrived_s.append(time.perf_counter())
            self.seqs.append(self._chronicle.note(frame))
        elif not frame.startswith(b":"):
            self.is_open = True

    def on_end(self, fault: str) -> None:
        self.fault = fault

    def has(self, seq: int) -> bool:
        """Whether it has the event, as far as order tells; True as well when it can have no more."""
        return self.fault is not None or (bool(self.seqs) and self.seqs[-1] >= seq)


def judged(readers: Sequence[Reader], chronicle: Chronicle, due_s: Mapping[str, float], types: Sequence[str]) -> Tally:
    """Latencies over readers and events of the messages in `due_s`; each of them has one event of each type."""
    tally = Tally()
    wanted = chronicle.about(due_s, types)
    times_told = Counter(chronicle.told[seq] for seq in wanted)
    tally.fail("event told twice", sum(times_told.values()) - len(times_told))
    tally.fail("event with different words", chronicle.differing)
    n_expected = len(due_s) * len(types)
    for reader in readers:
        _judge_order(reader, tally)
        latencies_s = {
            seq: at_s - due_s[chronicle.told[seq][1]]
            for seq, at_s in zip(reader.seqs, reader.arrived_s, strict=True)
            if seq in wanted
        }
        tally.latencies_s += latencies_s.values()
        tally.fail("event missing", max(n_expected, len(wanted)) - len(latencies_s))
        if reader.fault is not None:
            tally.fail(reader.fault)
    return tally


def _judge_order(reader: Reader, tally: Tally) -> None:
    tally.fail("event repeated", len(reader.seqs) - len(set(reader.seqs)))
    tally.fail("event out of order", sum(later < earlier for earlier, later in pairwise(reader.seqs)))


async def run_fanout(
    address: tuple[str, int],
    exchange: Exchange,
    stream_request: bytes,
    *,
    readers: int,
    types: Sequence[str],
    rate: float,
    count: int,
) -> dict[str, Any]:
    """Send `count` messages at `rate` a second before so many readers; a latency counts from when a send was due."""
    due_s: dict[str, float] = {}

    def answered(_: int, due: float, __: float, body: bytes) -> None:
        due_s[json.loads(body)["id"]] = due

    chronicle = Chronicle()
    async with _reading(address, stream_request, readers, chronicle) as opened:
        await _caught_up(address, exchange, opened, chronicle, types)
        cpu_s, started_s = time.process_time(), time.perf_counter()
        posts = await run_open(address, exchange, rate=rate, count=count, on_success=answered)
        await _until_all_have(opened, chronicle, due_s, types, ARRIVED_WITHIN_S)
        elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        tally = judged(opened, chronicle, due_s, types)
    tally.failures.update(posts["failures"])
    return {
        **tally.result(elapsed_s, cpu_s),
        "readers": readers,
        "events_per_s": tally.n_ok / readers / elapsed_s,
        "offered_per_s": rate,
        "sent_late_p99_ms": posts["sent_late_p99_ms"],
        "accept_p99_ms": posts.get("p99_ms"),
    }


@asynccontextmanager
async def _reading(
    address: tuple[str, int], request: bytes, count: int, chronicle: Chronicle
) -> AsyncIterator[list[Reader]]:
    """So many readers with their streams open; closed at the end of the block."""
    connections: list[SseConnection] = []
    readers: list[Reader] = []
    try:
        with anyio.fail_after(2 * OPEN_WITHIN_S):
            while len(readers) < count:
                reader, connection = await _opened(address, request, chronicle)
                connections.append(connection)
                if reader.fault != PLACE_TAKEN:
                    readers.append(reader)
                else:
                    # Streams that were closed a moment ago may still hold their places.
                    await anyio.sleep(RETRY_S)
        yield readers
    finally:
        for connection in connections:
            connection.close()


async def _opened(address: tuple[str, int], request: bytes, chronicle: Chronicle) -> tuple[Reader, SseConnection]:
    reader = Reader(chronicle)
    _, connection = await asyncio.get_running_loop().create_connection(lambda: SseConnection(request, reader), *address)
    await _until(lambda: reader.is_open or reader.fault is not None, OPEN_WITHIN_S)
    return reader, connection


async def _caught_up(
    address: tuple[str, int],
    exchange: Exchange,
    readers: Sequence[Reader],
    chronicle: Chronicle,
    types: Sequence[str],
) -> None:
    """Send one message and wait until all have its events: what was sent earlier lies before it.

    Raises `TimeoutError` when they have not within a minute.
    """
    sent: dict[str, float] = {}

    def answered(_: int, due_s: float, __: float, body: bytes) -> None:
        sent[json.loads(body)["id"]] = due_s

    await run_open(address, exchange, rate=1.0, count=1, connections=1, on_success=answered)
    if not await _until_all_have(readers, chronicle, sent, types, CAUGHT_UP_WITHIN_S):
        raise TimeoutError("the readers of the event stream have not caught up")


async def _until_all_have(
    readers: Sequence[Reader],
    chronicle: Chronicle,
    message_ids: Collection[str],
    types: Sequence[str],
    within_s: float,
) -> bool:
    """Wait until every reader has all events of these messages or can have no more; False when it takes too long."""
    n_expected = len(message_ids) * len(types)

    def all_have() -> bool:
        wanted = chronicle.about(message_ids, types)
        return len(wanted) >= n_expected and all(reader.has(max(wanted, default=0)) for reader in readers)

    return await _until(all_have, within_s)


async def _until(holds: Callable[[], bool], within_s: float) -> bool:
    with anyio.move_on_after(within_s):
        while not holds():
            await anyio.sleep(LOOK_EVERY_S)
        return True
    return False
