"""The broker dies, hangs or throws us out: what was acknowledged is there, once, and everybody goes on."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from contracts.errors import Stale, Unavailable
from contracts.records import Agent
from contracts.subjects import Names
from gateway.ports import Write
from infra.directory_store import BucketDirectory
from infra.embedded import EmbeddedNats
from infra.group_commit import CommitLimits, GroupCommit
from infra.jetstream_api import last_on, last_seq, next_on
from infra.ledger import StreamLedger
from infra.ledger_tail import StreamTail
from infra.nats_connection import Broker, NoAnswer
from infra.stream_append import EXPECTED, Record
from infra.watch import BrokerWatch
from infra.wire import BATCH_ID, BATCH_SEQUENCE
from tests.nats_streams import NOW, accepted, connected, provisioned, until

ALWAYS_BATCH = CommitLimits(min_batch=2, ack_timeout_s=0.5, deadline_s=6.0)
AGENT = Agent(id="agent_abcdefghijkl", owner="max", slug="helper", created_at=NOW, updated_at=NOW)
LONG_SUBJECT = "x" * 70_000
"""Longer than the broker's control line: it answers with an error nats-py does not know, and hangs up."""


@dataclass
class Attempts:
    """What many appends came to."""

    stored: dict[str, int] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.stored) + len(self.stale) + len(self.unknown) + len(self.refused)

    async def append(self, ledger: StreamLedger, ulid: str, *, name: str | None = None) -> None:
        name = name or ulid
        try:
            self.stored[name] = await ledger.append(ulid, accepted(ulid, by=f"key:{name}"), expected_seq=0)
        except Stale:
            self.stale.append(name)
        except Unavailable as error:
            (self.unknown if error.code == "accept_unknown" else self.refused).append(name)


async def restart(server: EmbeddedNats) -> None:
    server.kill()
    await server.start()


@asynccontextmanager
async def paused(server: EmbeddedNats) -> AsyncIterator[None]:
    server.pause()
    try:
        # Its threads stop one by one, and one that still runs answers.
        await until(lambda: all(state == "T" for state in thread_states(server.pid)))
        yield
    finally:
        server.resume()


def thread_states(pid: int) -> list[str]:
    stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


async def back(broker: Broker, generation: int) -> None:
    """Wait until the connection that follows `generation` works both ways."""
    await until(lambda: broker.is_up and broker.generation > generation)
    await broker.echo(2.0)


async def ledger_subjects(broker: Broker, names: Names) -> list[str]:
    """The ulids in the ledger in order, one for each record."""
    found, seq = [], 0
    while (record := await next_on(broker, names.ledger_stream, names.ledger_filter, seq + 1)) is not None:
        seq = record.seq
        found.append(record.subject.rpartition(".")[2])
    return found


async def test_the_connection_survives_the_broker_s_death(own_nats: EmbeddedNats) -> None:
    heard: list[bytes] = []
    gaps: list[int] = []
    lost: list[bool] = []
    async with Broker.open(own_nats.endpoint.url, name="test", on_lost=lambda: lost.append(True)) as broker:
        await broker.subscribe("news", lambda message: heard.append(message.data), on_gap=lambda: gaps.append(1))
        await restart(own_nats)
        await back(broker, 1)
        await broker.publish("news", b"after")
        await until(lambda: heard == [b"after"])
    assert (lost, gaps) == ([True], [1])


async def test_who_waits_for_a_connection_has_one_afterwards(own_nats: EmbeddedNats) -> None:
    async with connected(own_nats.endpoint.url) as broker:
        for _ in range(3):
            await broker.client().close()
            await broker.wait_up(5)
            assert broker.is_up


async def test_an_unknown_error_of_the_broker_costs_one_connection(own_nats: EmbeddedNats) -> None:
    heard: list[bytes] = []
    async with connected(own_nats.endpoint.url) as broker:
        await broker.subscribe("news", lambda message: heard.append(message.data))
        for generation in (1, 2):
            await broker.publish(LONG_SUBJECT)
            await back(broker, generation)
        await broker.publish("news", b"after")
        await until(lambda: heard == [b"after"])


async def test_a_request_under_way_learns_of_the_loss_at_once(own_nats: EmbeddedNats) -> None:
    async with connected(own_nats.endpoint.url) as broker:
        await broker.subscribe("silent", lambda _: None)

        async def ask() -> None:
            with pytest.raises(NoAnswer):
                await broker.request("silent", timeout_s=30.0)

        with anyio.fail_after(2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await anyio.lowlevel.checkpoint()
                await broker.publish(LONG_SUBJECT)


async def test_a_silent_broker_fails_the_echo_and_a_resumed_one_does_not(own_nats: EmbeddedNats) -> None:
    async with connected(own_nats.endpoint.url) as broker:
        async with paused(own_nats):
            with pytest.raises(Unavailable):
                await broker.echo(0.3)
        await broker.echo(5.0)
        await broker.echo(1.0)


async def test_a_publish_while_down_fails_at_once_and_is_not_stored_later(own_nats: EmbeddedNats, prefix: str) -> None:
    async with provisioned(own_nats.endpoint.url, prefix) as (broker, names):
        async with StreamLedger.open(broker, names) as ledger:
            own_nats.kill()
            await until(lambda: not broker.is_up)
            with anyio.fail_after(0.2):
                with pytest.raises(Unavailable) as plain:
                    await broker.publish(names.ledger("u1"), b"{}")
                with pytest.raises(Unavailable) as appended:
                    await ledger.append("u2", accepted("u2"), expected_seq=0)
            await own_nats.start()
            await back(broker, 1)
            await ledger.append("u3", accepted("u3"), expected_seq=0)
        assert await ledger_subjects(broker, names) == ["u3"]
    assert {plain.value.code, appended.value.code} == {"broker_unavailable"}


@pytest.mark.parametrize("n_appends", [1, 40])
async def test_an_append_over_a_pause_is_stored_exactly_once(
    own_nats: EmbeddedNats, prefix: str, n_appends: int
) -> None:
    attempts = Attempts()
    ulids = [f"u{number}" for number in range(n_appends)]
    async with provisioned(own_nats.endpoint.url, prefix) as (broker, names):
        async with StreamLedger.open(broker, names, limits=ALWAYS_BATCH) as ledger, anyio.create_task_group() as tasks:
            async with paused(own_nats):
                for ulid in ulids:
                    tasks.start_soon(attempts.append, ledger, ulid)
                # The first answer is given up after half a second and every member is asked for anew.
                await anyio.sleep(1.2)
        assert sorted(attempts.stored) == sorted(ulids)
        assert sorted(await ledger_subjects(broker, names)) == sorted(ulids)
        for ulid, seq in attempts.stored.items():
            there = await last_on(broker, names.ledger_stream, names.ledger(ulid))
            assert there is not None
            assert there.seq == seq


async def test_a_pause_longer_than_the_deadline_is_told_as_unknown(own_nats: EmbeddedNats, prefix: str) -> None:
    attempts = Attempts()
    limits = CommitLimits(ack_timeout_s=0.1, deadline_s=0.4)
    async with provisioned(own_nats.endpoint.url, prefix) as (broker, names):
        async with StreamLedger.open(broker, names, limits=limits) as ledger:
            async with paused(own_nats):
                with anyio.fail_after(2):
                    await attempts.append(ledger, "u1")
            assert attempts == Attempts(unknown=["u1"])
            await broker.echo(5.0)
            history = await ledger.load("u1")
    assert history is None or len(history.events) == 1


async def test_appends_over_two_deaths_are_stored_at_most_once_and_the_acknowledged_are_there(
    own_nats: EmbeddedNats, prefix: str
) -> None:
    attempts = Attempts()
    async with provisioned(own_nats.endpoint.url, prefix) as (broker, names):
        async with StreamLedger.open(broker, names, limits=ALWAYS_BATCH) as ledger:
            is_over = False

            async def keep_appending(writer: int) -> None:
                number = 0
                while not is_over:
                    await attempts.append(ledger, f"w{writer}n{number}")
                    number += 1
                    if not broker.is_up:
                        await broker.wait_up(10)

            async with anyio.create_task_group() as tasks:
                for writer in range(32):
                    tasks.start_soon(keep_appending, writer)
                for generation in (1, 2):
                    stored = len(attempts.stored)
                    await until(lambda stored=stored: len(attempts.stored) > stored + 200)  # type: ignore[misc]
                    await restart(own_nats)
                    await back(broker, generation)
                stored = len(attempts.stored)
                await until(lambda: len(attempts.stored) > stored + 200)
                is_over = True
        there = await ledger_subjects(broker, names)
    assert len(there) == len(set(there))
    assert set(attempts.stored) <= set(there)
    assert set(there) <= set(attempts.stored) | set(attempts.unknown)
    assert attempts.stale == []


async def test_fifty_contenders_over_a_death_have_one_winner(own_nats: EmbeddedNats, prefix: str) -> None:
    attempts = Attempts()
    async with provisioned(own_nats.endpoint.url, prefix) as (broker, names):
        async with (
            StreamLedger.open(broker, names, limits=ALWAYS_BATCH) as one,
            StreamLedger.open(broker, names, limits=ALWAYS_BATCH) as two,
        ):
            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    ledger = one if number % 2 else two
                    tasks.start_soon(_contend, attempts, ledger, f"c{number}")
                await anyio.lowlevel.checkpoint()
                await restart(own_nats)
            history = await one.load("u1")
        assert await last_seq(broker, names.ledger_stream) == 1
    assert history is not None
    assert attempts.unknown == []
    assert [f"key:{name}" for name in attempts.stored] == [history.events[0].event.by]
    assert len(attempts) == 50


async def _contend(attempts: Attempts, ledger: StreamLedger, name: str) -> None:
    await attempts.append(ledger, "u1", name=name)
    while name in attempts.refused:
        # Never handed over: the contender may try again.
        attempts.refused.remove(name)
        await anyio.sleep(0.01)
        await attempts.append(ledger, "u1", name=name)


async def test_a_half_sent_batch_leaves_nothing(own_nats: EmbeddedNats, prefix: str) -> None:
    async with provisioned(own_nats.endpoint.url, prefix) as (broker, names):
        for number in (1, 2, 3):
            headers = {EXPECTED: "0", BATCH_ID: "half", BATCH_SEQUENCE: str(number)}
            await broker.publish(names.ledger(f"u{number}"), b"{}", headers=headers)
        await broker.echo()
        await restart(own_nats)
        await back(broker, 1)
        assert await last_seq(broker, names.ledger_stream) == 0
        async with GroupCommit.open(broker, names.ledger_stream) as commits:
            records = [Record(subject=names.ledger(f"u{number}"), payload=b"{}", expected_seq=0) for number in (1, 2)]
            assert await commits.commit_together(records) == [1, 2]


async def test_what_was_to_be_together_is_together_after_a_death(own_nats: EmbeddedNats, prefix: str) -> None:
    outcomes: dict[int, list[int] | None] = {}
    async with provisioned(own_nats.endpoint.url, prefix) as (broker, names):
        async with GroupCommit.open(broker, names.ledger_stream, ALWAYS_BATCH) as commits:

            async def commit(number: int) -> None:
                records = [
                    Record(subject=names.ledger(f"u{number}{half}"), payload=b"{}", expected_seq=0) for half in "ab"
                ]
                try:
                    outcomes[number] = await commits.commit_together(records)
                except Unavailable:
                    outcomes[number] = None

            async with anyio.create_task_group() as tasks:
                for number in range(40):
                    tasks.start_soon(commit, number)
                await until(lambda: len(outcomes) > 3)
                await restart(own_nats)
        there = set(await ledger_subjects(broker, names))
    for number, seqs in outcomes.items():
        halves = {f"u{number}a", f"u{number}b"} & there
        assert len(halves) in ({2} if seqs else {0, 2})


async def test_the_tail_is_gap_free_over_deaths_and_a_pause(own_nats: EmbeddedNats, prefix: str) -> None:
    heard: list[int] = []
    attempts = Attempts()
    async with provisioned(own_nats.endpoint.url, prefix) as (broker, names):
        async with StreamLedger.open(broker, names, limits=ALWAYS_BATCH) as ledger, anyio.create_task_group() as tasks:

            async def listen() -> None:
                async with aclosing(StreamTail(broker, names).follow(0)) as batches:
                    async for batch in batches:
                        heard.extend(moved.stored.seq for moved in batch)

            async def write(tag: str) -> None:
                async with anyio.create_task_group() as writers:
                    for number in range(60):
                        writers.start_soon(attempts.append, ledger, f"{tag}{number}")

            tasks.start_soon(listen)
            await write("a")
            for generation in (1, 2):
                await restart(own_nats)
                await back(broker, generation)
                await write(f"b{generation}")
            async with paused(own_nats):
                await anyio.sleep(1.0)
            await write("c")
            last = await last_seq(broker, names.ledger_stream)
            await until(lambda: bool(heard) and heard[-1] == last)
            tasks.cancel_scope.cancel()
    assert heard == list(range(1, last + 1))
    assert len(attempts.stored) == 240


async def test_the_tail_tells_soon_after_the_broker_is_back(own_nats: EmbeddedNats, prefix: str) -> None:
    heard: list[str] = []
    async with provisioned(own_nats.endpoint.url, prefix) as (broker, names):
        async with StreamLedger.open(broker, names) as ledger, anyio.create_task_group() as tasks:

            async def listen() -> None:
                async with aclosing(StreamTail(broker, names).follow(0)) as batches:
                    async for batch in batches:
                        heard.extend(moved.ulid for moved in batch)

            tasks.start_soon(listen)
            await ledger.append("u1", accepted("u1"), expected_seq=0)
            await until(lambda: heard == ["u1"])
            await restart(own_nats)
            await back(broker, 1)
            await ledger.append("u2", accepted("u2"), expected_seq=0)
            await until(lambda: heard == ["u1", "u2"], within_s=1.0)
            tasks.cancel_scope.cancel()


async def test_a_directory_change_is_seen_within_two_seconds_also_after_a_death(
    own_nats: EmbeddedNats, prefix: str
) -> None:
    url = own_nats.endpoint.url
    async with provisioned(url, prefix) as (broker, names), connected(url) as elsewhere:
        async with BucketDirectory.open(broker, names) as ours, BucketDirectory.open(elsewhere, names) as theirs:

            async def change_and_see(expected_seq: int, slug: str) -> None:
                record = Agent(id=AGENT.id, owner="max", slug=slug, created_at=NOW, updated_at=NOW)
                await theirs.transact([Write(key="agent.x", record=record, expected_seq=expected_seq)])
                with anyio.fail_after(2.5):
                    while (found := await ours.get("agent.x", Agent)) is None or found.record.slug != slug:
                        await anyio.sleep(0.01)

            assert await ours.get("agent.x", Agent) is None
            await change_and_see(0, "one")
            await restart(own_nats)
            await back(broker, 1)
            await back(elsewhere, 1)
            await change_and_see(1, "two")
            await change_and_see(2, "three")


async def test_a_wait_goes_on_over_a_death(own_nats: EmbeddedNats, prefix: str) -> None:
    async with provisioned(own_nats.endpoint.url, prefix) as (broker, names):
        async with StreamLedger.open(broker, names) as ledger, BrokerWatch(broker, names).message("u1") as moves:
            await restart(own_nats)
            await back(broker, 1)
            # One item says "look again": something may have been missed.
            await anext(moves)
            await ledger.append("u1", accepted("u1"), expected_seq=0)
            with anyio.fail_after(0.9):
                await anext(moves)
