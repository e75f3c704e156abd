"""The directory's bucket on a real broker: compare-and-set over several keys, and what caches may remember."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import anyio
import pytest

from contracts.directory import LiveSessions, Owner, SlugEntry, agent_key, live_key, owner_key, slug_key
from contracts.errors import Stale
from contracts.records import Agent, LiveSession
from gateway.ports import Write
from infra.codec import Undecodable
from infra.directory_cache import DirectoryCache, Entry
from infra.directory_store import BucketDirectory, DirectoryReader
from infra.embedded import NatsEndpoint
from infra.nats_connection import Broker
from tests.nats_streams import NOW, connected, provisioned, until

AGENT_ID = "agent_abcdefghijkl"
AGENT = Agent(id=AGENT_ID, owner="max", slug="helper", created_at=NOW, updated_at=NOW)
KEY = agent_key(AGENT_ID)


class Monotonic:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.value = 0.0

    def __call__(self) -> float:
        return self.value


@asynccontextmanager
async def store_of(url: str, prefix: str) -> AsyncIterator[tuple[Broker, BucketDirectory, Monotonic]]:
    monotonic = Monotonic()
    async with provisioned(url, prefix) as (broker, names):
        async with BucketDirectory.open(broker, names, monotonic=monotonic) as store:
            yield broker, store, monotonic


def create(key: str = KEY) -> Write:
    return Write(key=key, record=AGENT, expected_seq=0)


async def test_a_record_is_written_and_read(nats_server: NatsEndpoint, prefix: str) -> None:
    async with store_of(nats_server.url, prefix) as (_, store, _):
        assert await store.get(KEY, Agent) is None
        await store.transact([create()])
        found = await store.get(KEY, Agent)
        assert found is not None
        assert (found.record, found.seq) == (AGENT, 1)


async def test_a_key_is_created_once(nats_server: NatsEndpoint, prefix: str) -> None:
    async with store_of(nats_server.url, prefix) as (_, store, _):
        await store.transact([create()])
        with pytest.raises(Stale) as caught:
            await store.transact([create()])
    assert caught.value.record == KEY


async def test_a_deleted_key_is_absent_and_may_be_created_again(nats_server: NatsEndpoint, prefix: str) -> None:
    async with store_of(nats_server.url, prefix) as (_, store, _):
        await store.transact([create()])
        await store.transact([Write(key=KEY, record=None, expected_seq=1)])
        assert await store.get(KEY, Agent) is None
        assert await store.keys("agent.*") == []
        await store.transact([create()])
        found = await store.get(KEY, Agent)
        assert found is not None
        assert found.seq == 3


async def test_a_deleted_key_is_created_again_by_one_of_many(nats_server: NatsEndpoint, prefix: str) -> None:
    async with store_of(nats_server.url, prefix) as (_, store, _):
        await store.transact([create()])
        await store.transact([Write(key=KEY, record=None, expected_seq=1)])
        wins: list[int] = []

        async def contend(number: int) -> None:
            try:
                await store.transact([Write(key=KEY, record=replace(AGENT, slug=f"s{number}"), expected_seq=0)])
            except Stale:
                return
            wins.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(contend, number)
        found = await store.get(KEY, Agent)
    assert found is not None
    assert [f"s{number}" for number in wins] == [found.record.slug]


async def test_several_keys_change_together_or_not_at_all(nats_server: NatsEndpoint, prefix: str) -> None:
    slug = Write(key=slug_key("max", "helper"), record=SlugEntry(agent_id=AGENT_ID), expected_seq=0)
    async with store_of(nats_server.url, prefix) as (_, store, _):
        await store.transact([slug])
        with pytest.raises(Stale):
            await store.transact([create(), slug])
        assert await store.get(KEY, Agent, fresh=True) is None
        await store.transact([create(), replace(slug, expected_seq=1)])
        assert await store.keys(">") == [KEY, slug.key]


async def test_keys_are_listed_by_pattern(nats_server: NatsEndpoint, prefix: str) -> None:
    async with store_of(nats_server.url, prefix) as (_, store, _):
        for owner, slug in (("max", "b"), ("max", "a"), ("eve", "c")):
            await store.transact(
                [Write(key=slug_key(owner, slug), record=SlugEntry(agent_id=AGENT_ID), expected_seq=0)]
            )
        assert await store.keys("slug.max.*") == ["slug.max.a", "slug.max.b"]
        assert await store.keys("slug.nobody.*") == []


async def test_a_remembered_record_and_absence_last_two_seconds(nats_server: NatsEndpoint, prefix: str) -> None:
    async with store_of(nats_server.url, prefix) as (broker, store, monotonic):
        await store.transact([create()])
        await broker.echo()

        async def requests_for(key: str) -> int:
            before = broker.client().stats["out_msgs"]
            await store.get(key, Agent)
            return int(broker.client().stats["out_msgs"] - before)

        for key in (KEY, agent_key("agent_000000000000")):
            assert [await requests_for(key) for _ in range(3)] == [1, 0, 0]
            monotonic.value += 1.9
            assert await requests_for(key) == 0
            monotonic.value += 0.2
            assert await requests_for(key) == 1


async def test_another_process_s_change_is_heard(nats_server: NatsEndpoint, prefix: str) -> None:
    async with store_of(nats_server.url, prefix) as (broker, store, _), connected(nats_server.url) as other_broker:
        assert await store.get(KEY, Agent) is None
        async with BucketDirectory.open(other_broker, store._names) as other:
            await other.transact([create()])
            # The answer comes behind the broadcast.
            await other_broker.echo()
            await broker.echo()
            found = await store.get(KEY, Agent)
            assert found is not None


async def test_the_wrong_kind_under_a_key_is_named(nats_server: NatsEndpoint, prefix: str) -> None:
    async with store_of(nats_server.url, prefix) as (_, store, _):
        await store.transact([Write(key=owner_key("max"), record=Owner(owner="max", created_at=NOW), expected_seq=0)])
        with pytest.raises(Undecodable, match=r"owner\.max"):
            await store.get(owner_key("max"), Agent)


async def test_the_router_reads_agents_and_attached_sessions(nats_server: NatsEndpoint, prefix: str) -> None:
    attached = LiveSession(id="sess_1", label="a", task_name="t", token_sha256="0" * 64, attached_at=NOW)
    detached = replace(attached, id="sess_2", detached_at=NOW)
    async with store_of(nats_server.url, prefix) as (_, store, _):
        reader = DirectoryReader(store)
        assert (await reader.agent(AGENT_ID), await reader.live_sessions(AGENT_ID)) == (None, ())
        sessions = LiveSessions(sessions=(attached, detached))
        await store.transact([create(), Write(key=live_key(AGENT_ID), record=sessions, expected_seq=0)])
        assert await reader.agent(AGENT_ID) == AGENT
        assert await reader.live_sessions(AGENT_ID) == (attached,)


async def test_a_webhook_is_disabled_once_whatever_else_changes(nats_server: NatsEndpoint, prefix: str) -> None:
    first, second = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 2, tzinfo=UTC)
    async with store_of(nats_server.url, prefix) as (_, store, _):
        reader = DirectoryReader(store)
        assert not await reader.disable_webhook(AGENT, first, "receiver_gone")
        await store.transact([create()])
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(reader.disable_webhook, AGENT, first, "receiver_gone")
        assert not await reader.disable_webhook(AGENT, second, "receiver_failing")
        found = await reader.agent(AGENT_ID)
        assert found == replace(AGENT, webhook_disabled_at=first, webhook_disabled_reason="receiver_gone")


async def test_what_was_seen_at_another_url_is_not_noted(nats_server: NatsEndpoint, prefix: str) -> None:
    first, second = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 2, tzinfo=UTC)
    async with store_of(nats_server.url, prefix) as (_, store, _):
        reader = DirectoryReader(store)
        await store.transact([create()])
        await reader.note_webhook(replace(AGENT, webhook_url="https://elsewhere.example/"), first)
        assert await reader.agent(AGENT_ID) == AGENT
        await reader.note_webhook(AGENT, first)
        await reader.note_webhook(AGENT, second)
        assert await reader.agent(AGENT_ID) == replace(AGENT, webhook_failing_since=first)
        await reader.note_webhook(AGENT, None)
        assert await reader.agent(AGENT_ID) == AGENT


async def test_many_records_come_in_the_order_they_were_asked_for_and_absent_ones_as_none(
    nats_server: NatsEndpoint, prefix: str
) -> None:
    keys = [owner_key(name) for name in ("zoe", "gone", "nobody", "ada", "zoe")]
    async with store_of(nats_server.url, prefix) as (_, store, _):
        owners = [Owner(owner=name, created_at=NOW) for name in ("zoe", "gone", "ada")]
        await store.transact([Write(key=owner_key(each.owner), record=each, expected_seq=0) for each in owners])
        gone = await store.get(owner_key("gone"), Owner)
        assert gone is not None
        await store.transact([Write(key=owner_key("gone"), record=None, expected_seq=gone.seq)])

        found = await store.get_all(keys, Owner)
        singly = [await store.get(key, Owner) for key in keys]

    assert [each and each.record.owner for each in found] == ["zoe", None, None, "ada", "zoe"]
    assert found == singly


class Shelf:
    """A place to read from that waits until it is told to answer."""

    def __init__(self) -> None:
        self.reads = 0
        self.asked: list[str] = []
        self.opened = anyio.Event()
        self.entry = Entry(seq=1, payload=b"old")

    async def read(self, keys: Sequence[str]) -> list[Entry]:
        self.reads += 1
        self.asked += [*keys]
        entry = self.entry
        await self.opened.wait()
        return [entry for _ in keys]


def cache_of(shelf: Shelf, max_entries: int = 10) -> DirectoryCache:
    return DirectoryCache(shelf.read, monotonic=Monotonic(), ttl_s=2.0, max_entries=max_entries)


async def test_concurrent_misses_share_one_read() -> None:
    shelf = Shelf()
    cache = cache_of(shelf)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(cache.get, "k")
        await until(lambda: shelf.reads == 1)
        shelf.opened.set()
    assert shelf.reads == 1


async def test_many_are_read_together_and_those_that_are_known_or_asked_for_already_not_again() -> None:
    shelf, answers = Shelf(), []
    cache = cache_of(shelf)

    async def ask() -> None:
        answers.append(await cache.get_all(["a", "b", "c", "b"]))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cache.get, "a")
        await until(lambda: shelf.reads == 1)
        tasks.start_soon(ask)
        await until(lambda: shelf.reads == 2)
        tasks.start_soon(cache.get, "c")
        await anyio.lowlevel.checkpoint()
        shelf.opened.set()
    await ask()
    assert answers == [[shelf.entry] * 4] * 2
    assert shelf.asked == ["a", "b", "c"]


async def test_many_are_read_by_the_next_when_their_reader_goes_away() -> None:
    shelf, answers = Shelf(), []
    cache = cache_of(shelf)

    async def ask() -> None:
        answers.append(await cache.get("b"))

    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as first:
            first.start_soon(cache.get_all, ["a", "b"])
            await until(lambda: shelf.reads == 1)
            tasks.start_soon(ask)
            await anyio.lowlevel.checkpoint()
            first.cancel_scope.cancel()
        await until(lambda: shelf.reads == 2)
        shelf.opened.set()
    assert (answers, shelf.asked) == ([shelf.entry], ["a", "b", "b"])


async def test_the_others_go_on_when_the_reader_goes_away() -> None:
    shelf, answers = Shelf(), []
    cache = cache_of(shelf)

    async def ask() -> None:
        answers.append(await cache.get("k"))

    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as first:
            first.start_soon(cache.get, "k")
            await until(lambda: shelf.reads == 1)
            tasks.start_soon(ask)
            await anyio.lowlevel.checkpoint()
            first.cancel_scope.cancel()
        await until(lambda: shelf.reads == 2)
        shelf.opened.set()
    assert answers == [shelf.entry]


async def test_what_was_dropped_while_it_was_read_is_not_remembered() -> None:
    shelf = Shelf()
    cache = cache_of(shelf)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cache.get, "k")
        await until(lambda: shelf.reads == 1)
        cache.drop("k")
        shelf.entry = Entry(seq=2, payload=b"new")
        shelf.opened.set()
    assert (await cache.get("k")).payload == b"new"


async def test_the_cache_is_bounded() -> None:
    shelf = Shelf()
    shelf.opened.set()
    cache = cache_of(shelf, max_entries=3)
    for number in range(10):
        await cache.get(f"k{number}")
    assert len(cache) == 3
