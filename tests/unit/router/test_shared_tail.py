"""One reading of the ledger for several followers: each is told everything once, whoever lags or leaves."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.events import Stored
from router.backlog import Backlog
from router.ports import LedgerTail, Moved
from router.shared_tail import SharedTail
from tests import builders as make


def moved(seq: int, n_bytes: int = 1) -> Moved:
    return Moved(ulid=f"u{seq}", stored=Stored(seq=seq, event=make.marked()), n_bytes=n_bytes)


def seqs(batch: Sequence[Moved]) -> list[int]:
    return [each.stored.seq for each in batch]


class Lines:
    """A ledger in memory, read in steps of `step`. `readings` counts those under way."""

    def __init__(self, n_events: int = 0, *, step: int = 3) -> None:
        self.end = n_events
        self.step = step
        self.readings = 0
        self.begun: list[int] = []
        self._grown = anyio.Event()

    def grow(self, n_events: int = 1) -> None:
        self.end += n_events
        self.tick()

    def tick(self) -> None:
        """Wake who reads; without anything new they say so."""
        self._grown.set()
        self._grown = anyio.Event()

    async def last_seq(self) -> int:
        return self.end

    async def follow(self, after_seq: int) -> AsyncGenerator[Sequence[Moved], None]:
        self.readings += 1
        self.begun.append(after_seq)
        try:
            while True:
                upto = min(self.end, after_seq + self.step)
                if upto == after_seq:
                    await self._grown.wait()
                    upto = min(self.end, after_seq + self.step)
                yield [moved(seq) for seq in range(after_seq + 1, upto + 1)]
                after_seq = upto
        finally:
            self.readings -= 1


class Reader:
    """Follows in a task of its own, no further than it is allowed to."""

    def __init__(self, tail: LedgerTail, after_seq: int) -> None:
        self.seen: list[int] = []
        self.after_seq = after_seq
        self.may_go_on = anyio.Event()
        self.may_go_on.set()
        self._tail = tail
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        with self._scope:
            async with aclosing(self._tail.follow(self.after_seq)) as batches:
                async for batch in batches:
                    self.seen += seqs(batch)
                    await self.may_go_on.wait()

    def leave(self) -> None:
        self._scope.cancel()

    async def reaches(self, seq: int) -> None:
        with anyio.fail_after(5):
            while not self.seen or self.seen[-1] < seq:
                await anyio.lowlevel.checkpoint()
        assert self.seen == list(range(self.after_seq + 1, seq + 1))


@asynccontextmanager
async def reading(*readers: Reader) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        for reader in readers:
            group.start_soon(reader.run)
        yield
        group.cancel_scope.cancel()


async def settled(lines: Lines, readings: int) -> None:
    with anyio.fail_after(5):
        while lines.readings != readings:
            lines.tick()
            await anyio.lowlevel.checkpoint()


async def test_two_who_keep_up_read_the_ledger_once() -> None:
    lines = Lines(10)
    shared = SharedTail(lines)
    leader, other = Reader(shared, 10), Reader(shared.beside, 10)
    async with reading(leader, other):
        await settled(lines, 1)
        for _ in range(20):
            lines.grow()
            await leader.reaches(lines.end)
            await other.reaches(lines.end)

        assert lines.begun == [10]
        assert shared.newest_seq == 30


@pytest.mark.parametrize(("leader_after", "other_after"), [(50, 0), (0, 50), (100, 0), (0, 100)])
async def test_who_begins_elsewhere_reads_alone_until_both_are_at_one_place(
    leader_after: int, other_after: int
) -> None:
    lines = Lines(100)
    shared = SharedTail(lines)
    leader, other = Reader(shared, leader_after), Reader(shared.beside, other_after)
    async with reading(leader, other):
        for _ in range(200):
            lines.grow()
            await anyio.lowlevel.checkpoint()
        await leader.reaches(300)
        await other.reaches(300)
        await settled(lines, 1)
        lines.grow(5)

        await leader.reaches(305)
        await other.reaches(305)


async def test_beside_a_leader_further_back_nobody_waits_for_it() -> None:
    lines = Lines(100)
    shared = SharedTail(lines)
    leader, other = Reader(shared, 0), Reader(shared.beside, 90)
    leader.may_go_on = anyio.Event()
    async with reading(leader, other):
        await leader.reaches(3)
        lines.grow(10)

        await other.reaches(110)
        assert leader.seen[-1] == 3


async def test_who_lags_is_not_remembered_without_bound_and_misses_nothing() -> None:
    lines = Lines()
    shared = SharedTail(lines, max_events=10)
    leader, other = Reader(shared, 0), Reader(shared.beside, 0)
    async with reading(leader, other):
        await settled(lines, 1)
        lines.grow()
        await other.reaches(1)
        other.may_go_on = anyio.Event()
        lines.grow()
        await other.reaches(2)
        for _ in range(100):
            lines.grow()
            await leader.reaches(lines.end)
            assert all(len(each.backlog) <= 10 for each in shared._followers)

        other.may_go_on.set()
        await other.reaches(102)
        assert len(lines.begun) == 2
        await settled(lines, 1)
        lines.grow()
        await other.reaches(103)


async def test_without_a_leader_one_reads_alone_and_joins_the_next() -> None:
    lines = Lines(10)
    shared = SharedTail(lines)
    first, other, second = Reader(shared, 0), Reader(shared.beside, 0), Reader(shared, 5)
    async with reading(first, other):
        await other.reaches(10)
        await settled(lines, 1)
        first.leave()
        lines.grow(10)
        await other.reaches(20)
        assert lines.readings == 1
        assert lines.begun[-1] == 10

        async with reading(second):
            await second.reaches(20)
            await settled(lines, 1)
            lines.grow(10)
            await other.reaches(30)


async def test_a_second_reading_of_the_leaders_tail_leaves_the_others_alone() -> None:
    lines = Lines(10)
    shared = SharedTail(lines)
    leader, other, again = Reader(shared, 10), Reader(shared.beside, 10), Reader(shared, 0)
    async with reading(leader, other):
        await settled(lines, 1)
        async with reading(again):
            await again.reaches(10)
        lines.grow()

        await leader.reaches(11)
        await other.reaches(11)
        assert lines.begun == [10, 0]


async def test_nobody_is_remembered_for_who_left() -> None:
    lines = Lines(10)
    shared = SharedTail(lines)
    leader, other = Reader(shared, 10), Reader(shared.beside, 10)
    async with reading(leader):
        async with reading(other):
            await settled(lines, 1)
        assert shared._followers == []


@given(
    steps=st.lists(st.sampled_from(["grow", "take", "open", "shut"]), max_size=60),
    max_events=st.integers(1, 8),
)
def test_what_an_open_backlog_gives_is_everything_behind_its_beginning(steps: list[str], max_events: int) -> None:
    backlog, end, seen = Backlog(max_events=max_events, max_bytes=1_000_000), 0, 0
    for step in steps:
        if step == "grow":
            backlog.add([moved(end + 1), moved(end + 2)])
            end += 2
        elif step == "open":
            backlog.open(end)
        elif step == "shut":
            backlog.shut()
        elif backlog.reaches_back_to(seen):
            taken = seqs(backlog.take(seen))
            assert taken == list(range(seen + 1, end + 1))
            seen = end
        else:
            # What is missing is read elsewhere.
            seen = end
        assert len(backlog) <= max_events


def test_a_backlog_is_bounded_in_bytes_as_well() -> None:
    backlog = Backlog(max_events=100, max_bytes=1_000)
    backlog.open(0)
    backlog.add([moved(1, n_bytes=900)])
    assert backlog.reaches_back_to(0)
    backlog.add([moved(2, n_bytes=200)])
    assert not backlog.is_open
    assert len(backlog) == 0


def test_what_was_seen_already_is_not_given_again() -> None:
    backlog = Backlog(max_events=100, max_bytes=1_000)
    backlog.open(2)
    backlog.add([moved(3), moved(4), moved(5)])

    assert seqs(backlog.take(4)) == [5]
    assert seqs(backlog.take(5)) == []
