"""The ledger on a real broker: compare-and-set, group commit, histories."""

import anyio
import pytest

from contracts.errors import Invalid, Stale, Unavailable
from contracts.events import Event
from contracts.subjects import Names
from infra.codec import encode_event
from infra.embedded import NatsEndpoint
from infra.group_commit import CommitLimits, GroupCommit
from infra.history_cache import HistoryCache
from infra.jetstream_api import last_on, last_seq
from infra.ledger import StreamLedger
from infra.nats_connection import Broker
from infra.provision import StreamSettings, provision
from infra.stream_append import Record
from tests.nats_streams import accepted, connected, ended, provisioned

ALWAYS_BATCH = CommitLimits(min_batch=2)


async def append_all(ledger: StreamLedger, ulids: list[str], event: Event) -> dict[str, int | Exception]:
    """Append the same event to every subject at once, as new; what came of each."""
    results: dict[str, int | Exception] = {}

    async def one(ulid: str) -> None:
        try:
            results[ulid] = await ledger.append(ulid, event, expected_seq=0)
        except (Stale, Unavailable) as error:
            results[ulid] = error

    async with anyio.create_task_group() as tasks:
        for ulid in ulids:
            tasks.start_soon(one, ulid)
    return results


async def test_a_message_is_appended_and_loaded(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:
        first = await ledger.append("u1", accepted("u1"), expected_seq=0)
        second = await ledger.append("u1", ended(), expected_seq=first)
        async with StreamLedger.open(broker, names) as elsewhere:
            history = await elsewhere.load("u1")
    assert history is not None
    assert [(stored.seq, stored.event) for stored in history.events] == [(first, accepted("u1")), (second, ended())]
    assert history.head_seq == second


async def test_what_is_not_there_loads_as_none(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:
        assert await ledger.load("u1") is None
        assert await ledger.load("u1", fresh=False) is None


async def test_a_second_first_event_is_stale(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:
        await ledger.append("u1", accepted("u1"), expected_seq=0)
        with pytest.raises(Stale):
            await ledger.append("u1", accepted("u1"), expected_seq=0)


async def test_a_fresh_load_sees_what_another_process_appended(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:
        async with StreamLedger.open(broker, names) as other:
            seq = await ledger.append("u1", accepted("u1"), expected_seq=0)
            await other.append("u1", ended(), expected_seq=seq)
            remembered, fresh = await ledger.load("u1", fresh=False), await ledger.load("u1")
        with pytest.raises(Stale):
            await ledger.append("u1", ended(), expected_seq=seq)
        after_stale = await ledger.load("u1", fresh=False)
    assert remembered is not None
    assert len(remembered.events) == 1
    assert fresh is not None
    assert len(fresh.events) == 2
    assert after_stale == fresh


async def test_a_remembered_history_asks_nobody(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:
        seq = await ledger.append("u1", accepted("u1"), expected_seq=0)
        await ledger.append("u1", ended(), expected_seq=seq)
        sent = broker.client().stats["out_msgs"]
        history = await ledger.load("u1", fresh=False)
        assert broker.client().stats["out_msgs"] == sent
    assert history is not None
    assert len(history.events) == 2


@pytest.mark.parametrize("limits", [CommitLimits(), ALWAYS_BATCH, CommitLimits(min_batch=1000)])
async def test_appends_in_company_get_their_own_sequences(
    nats_server: NatsEndpoint, prefix: str, limits: CommitLimits
) -> None:
    ulids = [f"u{number}" for number in range(100)]
    async with provisioned(nats_server.url, prefix) as (broker, names):
        async with StreamLedger.open(broker, names, limits=limits) as ledger:
            results = await append_all(ledger, ulids, accepted("u"))
        for ulid in ulids:
            there = await last_on(broker, names.ledger_stream, names.ledger(ulid))
            assert there is not None
            assert there.seq == results[ulid]
    assert sorted(seq for seq in results.values() if isinstance(seq, int)) == list(range(1, 101))


@pytest.mark.parametrize("limits", [CommitLimits(), ALWAYS_BATCH])
async def test_one_member_s_conflict_fails_no_neighbour(
    nats_server: NatsEndpoint, prefix: str, limits: CommitLimits
) -> None:
    ulids = [f"u{number}" for number in range(30)]
    async with provisioned(nats_server.url, prefix) as (broker, names):
        async with StreamLedger.open(broker, names) as other:
            await other.append("u7", accepted("u7"), expected_seq=0)
        async with StreamLedger.open(broker, names, limits=limits) as ledger:
            results = await append_all(ledger, ulids, accepted("u"))
        assert await last_seq(broker, names.ledger_stream) == 30
    assert isinstance(results.pop("u7"), Stale)
    assert all(isinstance(result, int) for result in results.values())


async def test_of_fifty_with_the_same_expectation_one_wins(nats_server: NatsEndpoint, prefix: str) -> None:
    results: list[int | Stale] = []
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:

        async def contend(number: int) -> None:
            try:
                results.append(await ledger.append("u1", accepted("u1", by=f"key:{number}"), expected_seq=0))
            except Stale as stale:
                results.append(stale)

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(contend, number)
        history = await ledger.load("u1")
    assert history is not None
    assert len(history.events) == 1
    assert [result for result in results if not isinstance(result, Stale)] == [history.head_seq]


async def test_a_caller_that_goes_away_disturbs_nobody(nats_server: NatsEndpoint, prefix: str) -> None:
    results: dict[str, int] = {}
    async with provisioned(nats_server.url, prefix) as (broker, names):
        async with StreamLedger.open(broker, names, limits=ALWAYS_BATCH) as ledger:

            async def one(ulid: str, patience_s: float) -> None:
                with anyio.move_on_after(patience_s):
                    results[ulid] = await ledger.append(ulid, accepted(ulid), expected_seq=0)

            async with anyio.create_task_group() as tasks:
                for number in range(40):
                    tasks.start_soon(one, f"u{number}", 0.001 * (number % 2) or 10.0)
            for number in range(0, 40, 2):
                there = await last_on(broker, names.ledger_stream, names.ledger(f"u{number}"))
                assert there is not None
                assert there.seq == results[f"u{number}"]


async def test_a_full_ledger_says_storage_full(nats_server: NatsEndpoint, prefix: str) -> None:
    names = Names(prefix=prefix)
    settings = StreamSettings(
        ledger_max_bytes=20_000, directory_max_bytes=1024**2, events_max_bytes=1024**2, max_record_bytes=8192
    )
    async with connected(nats_server.url) as broker:
        await provision(broker, names, settings)
        async with StreamLedger.open(broker, names, limits=ALWAYS_BATCH) as ledger:
            results = await append_all(ledger, [f"u{number}" for number in range(20)], accepted("u", body="x" * 2000))
            seqs = [result for result in results.values() if isinstance(result, int)]
            codes = {result.code for result in results.values() if isinstance(result, Unavailable)}
            stored = await last_seq(broker, names.ledger_stream)
    assert codes == {"storage_full"}
    assert len(seqs) == stored > 0


async def test_a_record_larger_than_the_broker_takes_is_refused_before_it_is_sent(
    nats_server: NatsEndpoint, prefix: str
) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:
        size = broker.client().max_payload
        with pytest.raises(Invalid):
            await ledger.append("u1", accepted("u1", body="x" * size), expected_seq=0)
        await ledger.append("u2", accepted("u2"), expected_seq=0)


class _Publishes:
    """Counts the messages a connection sends to the ledger, by whether they belong to a batch."""

    def __init__(self, broker: Broker, names: Names) -> None:
        self.singly = self.batched = 0
        self._names = names
        self._broker = broker

    async def listen(self) -> None:
        await self._broker.subscribe(self._names.ledger_filter, self._note)

    def _note(self, message: object) -> None:
        headers = getattr(message, "headers", None) or {}
        if "Nats-Batch-Id" in headers:
            self.batched += 1
        else:
            self.singly += 1


async def test_few_travel_singly_and_many_in_a_batch(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:
        publishes = _Publishes(broker, names)
        await publishes.listen()
        await append_all(ledger, [f"a{number}" for number in range(5)], accepted("u"))
        await broker.echo()
        assert (publishes.singly, publishes.batched) == (5, 0)
        await append_all(ledger, [f"b{number}" for number in range(60)], accepted("u"))
        await broker.echo()
        assert (publishes.singly, publishes.batched) == (5, 60)


async def test_together_means_all_or_nothing(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names):
        async with GroupCommit.open(broker, names.ledger_stream) as commits:

            def records(*expected: int) -> list[Record]:
                payload = encode_event(ended())
                return [
                    Record(subject=names.ledger(f"u{number}"), payload=payload, expected_seq=seq)
                    for number, seq in enumerate(expected)
                ]

            assert await commits.commit_together(records(0, 0, 0)) == [1, 2, 3]
            with pytest.raises(Stale):
                await commits.commit_together(records(1, 2, 0))
            assert await last_seq(broker, names.ledger_stream) == 3
            assert await commits.commit_together(records(1, 2, 3)) == [4, 5, 6]


def test_the_cache_is_bounded_by_count_and_bytes() -> None:
    cache = HistoryCache(max_histories=3, max_bytes=100)
    for number in range(5):
        cache.put(f"u{number}", ((1, b"x" * 10),))
    assert (len(cache), cache.n_bytes, cache.get("u1")) == (3, 30, ())
    cache.put("big", ((1, b"x" * 90),))
    assert (len(cache), cache.n_bytes) == (2, 100)
    cache.drop("big")
    assert (len(cache), cache.n_bytes) == (1, 10)
