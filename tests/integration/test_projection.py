"""The projection on a real Valkey: what queries find after which rows were written, in whatever order."""

import itertools
from collections.abc import AsyncIterator

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from contracts.errors import Unavailable
from contracts.words import INBOX_STATES, Channel, State
from gateway.ports import Page, Query
from infra.embedded import EmbeddedRedis, RedisEndpoint
from infra.projection import EPOCH_KEY, QueueBounds, RedisProjection
from infra.queries import RedisQueries
from router.ports import Row
from tests.redis_rows import AGENT, OWNER, SENDER, Store, connected, row, running_store

INBOX = (State.IN_INBOX, State.INBOX_DELIVERED, State.INBOX_READ)
SOME = (*INBOX, State.QUEUED, State.DELIVERED)
numbers = itertools.count(1)


@pytest.fixture
async def store(redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Store]:
    async with running_store(redis_server.url, prefix) as running:
        yield running


async def views(store: Store, **question: object) -> list[str]:
    page = await store.queries.page(Query(**{"owner": OWNER, **question}))  # type: ignore[arg-type]
    return [view.decode() for view in page.views]


async def walk(store: Store, query: Query) -> list[bytes]:
    """Every view of a query, page after page."""
    seen: list[bytes] = []
    after = query.after
    while True:
        page = await store.queries.page(
            Query(
                owner=query.owner,
                agent_id=query.agent_id,
                states=query.states,
                channel=query.channel,
                sender_agent_id=query.sender_agent_id,
                after=after,
                limit=query.limit,
                oldest_first=query.oldest_first,
            )
        )
        seen += page.views
        after = page.next_after
        if after is None:
            return seen


# --- which row wins ------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(5)), batch_rows=st.integers(1, 5))
async def test_the_newest_row_wins_in_whatever_order_rows_arrive(
    redis_server: RedisEndpoint, prefix: str, order: list[int], batch_rows: int
) -> None:
    number = next(numbers)
    agent = f"agent_{number:012d}"
    states = (State.OFFERED, State.CLAIMED, State.QUEUED, State.LEASED, State.DELIVERED)
    history = [row(number, agent_id=agent, seq=10 + n, state=state) for n, state in enumerate(states)]
    async with running_store(redis_server.url, prefix, bounds=QueueBounds(batch_rows=batch_rows)) as store:
        for step in order:
            await store.write(history[step])
        assert await views(store, agent_id=agent) == [f"{number}@14"]
        assert await views(store, agent_id=agent, states=(State.DELIVERED,)) == [f"{number}@14"]
        assert await views(store, agent_id=agent, states=states[:4]) == []


async def test_rows_of_one_message_queued_together_are_written_once(store: Store) -> None:
    for seq in (3, 5, 4):
        store.projection.write(row(1, seq=seq))
    assert store.projection.queued == 1
    await store.projection.settle()
    assert await views(store) == ["1@5"]


async def test_a_row_as_new_as_the_stored_one_changes_nothing(store: Store) -> None:
    await store.write(row(1, seq=5, view=b"first"))
    await store.write(row(1, seq=5, view=b"second"))
    assert await views(store) == ["first"]


async def test_a_message_leaves_the_index_of_its_old_state_and_channel(store: Store) -> None:
    await store.write(row(1, seq=1, channel=Channel.LIVE, state=State.OFFERED))
    await store.write(row(1, seq=2, channel=Channel.BG, state=State.QUEUED))
    assert await views(store, channel=Channel.LIVE) == []
    assert await views(store, channel=Channel.BG) == ["1@2"]
    assert await views(store, states=(State.OFFERED,)) == []
    assert await views(store, agent_id=AGENT, states=(State.QUEUED,)) == ["1@2"]
    assert await store.queries.count(Query(owner=OWNER, states=(State.OFFERED,))) == 0


async def test_a_message_accepted_anew_after_its_subject_was_purged_takes_its_new_place(store: Store) -> None:
    await store.write(row(1), row(2))
    await store.write(row(1, seq=9, accept_seq=9))
    assert await views(store) == ["1@9", "2@2"]


# --- what is found -------------------------------------------------------------------------------------------------


async def test_an_inbox_is_the_union_of_its_states_in_order(store: Store) -> None:
    for number in range(1, 31):
        store.projection.write(row(number, channel=Channel.INBOX, state=INBOX[number % 3]))
    await store.write(row(31, channel=Channel.INBOX, state=State.DELIVERED))
    found = await views(store, agent_id=AGENT, states=INBOX, limit=7)
    assert found == [f"{n}@{n}" for n in range(30, 23, -1)]
    found = await views(store, agent_id=AGENT, states=INBOX, limit=7, oldest_first=True)
    assert found == [f"{n}@{n}" for n in range(1, 8)]


async def test_claim_next_finds_the_oldest_queued_message_of_its_channel(store: Store) -> None:
    await store.write(
        row(1, channel=Channel.WEBHOOK),
        row(2, state=State.LEASED),
        row(3),
        row(4),
        row(5, agent_id="agent_other0000000"),
    )
    found = await views(store, agent_id=AGENT, states=(State.QUEUED,), channel=Channel.BG, limit=1, oldest_first=True)
    assert found == ["3@3"]


@pytest.mark.parametrize("number_of_others", [0, 300])
async def test_filters_combine(store: Store, number_of_others: int) -> None:
    await store.write(
        row(1, state=State.DELIVERED, channel=Channel.LIVE),
        row(2, state=State.DELIVERED),
        row(3, sender_agent_id="agent_x00000000000"),
        row(4, sender_agent_id=None, agent_id="agent_y00000000000", channel=Channel.LIVE),
    )
    await store.write(
        *(row(n, agent_id="agent_z00000000000", channel=Channel.INBOX) for n in range(10, 10 + number_of_others))
    )
    assert await views(store, states=(State.DELIVERED,), channel=Channel.LIVE) == ["1@1"]
    assert await views(store, agent_id=AGENT, channel=Channel.BG) == ["3@3", "2@2"]
    assert await views(store, agent_id=AGENT, sender_agent_id=SENDER) == ["2@2", "1@1"]
    assert await views(store, sender_agent_id=SENDER, states=(State.DELIVERED,), channel=Channel.BG) == ["2@2"]
    assert await views(store, channel=Channel.LIVE) == ["4@4", "1@1"]
    assert await store.queries.count(Query(owner=OWNER, agent_id=AGENT, channel=Channel.BG)) == 2
    assert await store.queries.count(Query(owner=OWNER, agent_id=AGENT)) == 3
    assert await store.queries.count(Query(owner=OWNER)) == 4 + number_of_others


async def test_nobody_sees_the_rows_of_another_owner(store: Store) -> None:
    await store.write(row(1, sender_owner="other"), row(2, owner="other"))
    assert await views(store, agent_id=AGENT) == ["1@1"]
    assert await views(store, agent_id=AGENT, owner="other") == ["2@2"]
    assert await views(store, sender_agent_id=SENDER) == ["2@2"]
    assert await views(store, sender_agent_id=SENDER, owner="other") == ["1@1"]
    assert await views(store, sender_agent_id=SENDER, agent_id=AGENT) == []
    assert await views(store, owner="third") == []


# --- pages ---------------------------------------------------------------------------------------------------------


async def test_pages_stay_in_place_while_rows_are_inserted_and_change(store: Store) -> None:
    await store.write(*(row(n) for n in range(1, 11)))
    first = await store.queries.page(Query(owner=OWNER, limit=4))
    await store.write(*(row(n) for n in range(11, 15)), row(5, seq=99, view=b"changed"))
    second = await store.queries.page(Query(owner=OWNER, limit=4, after=first.next_after))
    third = await store.queries.page(Query(owner=OWNER, limit=4, after=second.next_after))
    assert first == Page(views=(b"10@10", b"9@9", b"8@8", b"7@7"), next_after=7)
    assert second == Page(views=(b"6@6", b"changed", b"4@4", b"3@3"), next_after=3)
    assert third == Page(views=(b"2@2", b"1@1"), next_after=None)


async def test_a_page_that_ends_with_the_last_row_says_so(store: Store) -> None:
    await store.write(row(1), row(2))
    assert (await store.queries.page(Query(owner=OWNER, limit=2))).next_after is None


async def test_a_rare_match_is_found_behind_thousands_of_others(store: Store) -> None:
    await store.write(row(1, channel=Channel.LIVE, sender_agent_id=None))
    for start in range(2, 3002, 500):
        await store.write(*(row(n) for n in range(start, start + 500)))
    await store.write(row(4000, channel=Channel.LIVE))
    found = await views(store, sender_agent_id=SENDER, channel=Channel.LIVE, oldest_first=True)
    assert found == ["4000@4000"]
    assert await store.queries.count(Query(owner=OWNER, sender_agent_id=SENDER, channel=Channel.LIVE)) == 1


async def test_sequences_are_exact_up_to_two_to_the_fifty_third(store: Store) -> None:
    last = 2**53 - 1
    for n, sequence in enumerate((10**15, 10**15 + 1, last - 1, last)):
        store.projection.write(row(n + 1, seq=sequence, accept_seq=sequence))
    await store.projection.settle()
    assert await walk(store, Query(owner=OWNER, limit=1)) == [
        f"{n}@{sequence}".encode() for n, sequence in ((4, last), (3, last - 1), (2, 10**15 + 1), (1, 10**15))
    ]
    assert await store.projection.missing([(row(4).ulid, last), (row(3).ulid, last)]) == [row(3).ulid]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(SOME), st.sampled_from((Channel.BG, Channel.LIVE)), st.booleans()), max_size=40
    ),
    limit=st.integers(1, 7),
    oldest_first=st.booleans(),
    states=st.sets(st.sampled_from(SOME)),
    channel=st.none() | st.sampled_from((Channel.BG, Channel.LIVE, Channel.INBOX)),
    agent=st.none() | st.just(AGENT),
    sender=st.none() | st.just(SENDER),
)
@example(
    rows=[(State.IN_INBOX, Channel.BG, False), (State.QUEUED, Channel.BG, False)],
    limit=1,
    oldest_first=True,
    states={State.IN_INBOX, State.QUEUED},
    channel=Channel.INBOX,
    agent=AGENT,
    sender=None,
)
async def test_walking_the_pages_gives_every_match_once_and_in_order(
    redis_server: RedisEndpoint,
    prefix: str,
    rows: list[tuple[State, Channel, bool]],
    limit: int,
    oldest_first: bool,
    states: set[State],
    channel: Channel | None,
    agent: str | None,
    sender: str | None,
) -> None:
    written: list[Row] = [
        # Nothing but an inbox has an inbox's states.
        row(
            n + 1,
            state=state,
            channel=Channel.INBOX if state in INBOX_STATES else channel_of,
            sender_agent_id=SENDER if sent else None,
        )
        for n, (state, channel_of, sent) in enumerate(rows)
    ]
    query = Query(
        owner=OWNER,
        agent_id=agent,
        states=tuple(sorted(states)),
        channel=channel,
        sender_agent_id=sender,
        limit=limit,
        oldest_first=oldest_first,
    )
    expected = [
        each.view
        for each in (written if oldest_first else reversed(written))
        if (not states or each.state in states)
        and channel in (None, each.channel)
        and sender in (None, each.sender_agent_id)
    ]
    async with running_store(redis_server.url, f"{prefix}{next(numbers)}") as store:
        await store.write(*written)
        assert await walk(store, query) == expected
        assert await store.queries.count(query) == len(expected)


# --- the marker ----------------------------------------------------------------------------------------------------


async def test_an_emptied_store_refuses_lists_until_it_is_rebuilt(own_redis: EmbeddedRedis, prefix: str) -> None:
    async with running_store(own_redis.endpoint.url, prefix) as store:
        await store.write(row(1))
        await store.connection.command("FLUSHALL")
        for ask in (store.queries.page, store.queries.count):
            with pytest.raises(Unavailable) as refused:
                await ask(Query(owner=OWNER))
            assert (refused.value.code, refused.value.retry_after_s) == ("projection_rebuilding", 1)
        assert await store.projection.epoch() is None
        assert await store.projection.missing([(row(1).ulid, 1)]) == [row(1).ulid]
        await store.write(row(1))
        await store.projection.set_epoch(1)
        assert await store.projection.epoch() == 1
        assert await views(store) == ["1@1"]


async def test_the_marker_does_not_move_on_over_a_flush_nobody_has_noticed(
    own_redis: EmbeddedRedis, prefix: str
) -> None:
    async with running_store(own_redis.endpoint.url, prefix) as store:
        await store.projection.set_epoch(5)
        await store.connection.command("FLUSHALL")
        await store.projection.set_epoch(6)
        assert await store.projection.epoch() is None


async def test_a_flush_during_a_rebuild_begins_another_one(own_redis: EmbeddedRedis, prefix: str) -> None:
    async with running_store(own_redis.endpoint.url, prefix, complete=False) as store:
        assert await store.projection.epoch() is None
        await store.connection.command("FLUSHALL")
        await store.projection.set_epoch(6)
        assert await store.projection.epoch() is None
        await store.projection.set_epoch(6)
        assert await store.projection.epoch() == 6


async def test_the_marker_stays_where_a_crash_set_it_back(store: Store) -> None:
    await store.projection.set_epoch(100)
    await store.connection.command("SET", store.connection.key(EPOCH_KEY), 60)
    await store.projection.set_epoch(110)
    assert await store.projection.epoch() == 60
    await store.projection.set_epoch(110)
    assert await store.projection.epoch() == 110


async def test_a_router_that_vouches_for_less_sets_the_marker_back(store: Store) -> None:
    await store.projection.set_epoch(100)
    other = RedisProjection(store.connection)
    assert await other.epoch() == 100
    await other.set_epoch(90)
    assert await store.projection.epoch() == 90


async def test_a_row_the_server_lost_asks_for_a_rebuild_instead_of_a_short_list(store: Store) -> None:
    await store.write(row(1), row(2))
    await store.connection.command("DEL", store.connection.key(f"2:row:{row(1).ulid}"))
    with pytest.raises(Unavailable, match="rebuilt"):
        await store.queries.page(Query(owner=OWNER))
    assert await store.projection.epoch() is None
    await store.write(row(1))
    await store.projection.set_epoch(2)
    assert await views(store) == ["2@2", "1@1"]


async def test_missing_names_what_is_absent_or_older(store: Store) -> None:
    await store.write(row(1, seq=5), row(2, seq=5))
    heads = [(row(n).ulid, 6 if n == 2 else 5) for n in range(1, 2001)]
    assert await store.projection.missing(heads) == [row(n).ulid for n in range(2, 2001)]
    assert await store.projection.missing([]) == []


# --- the queue -----------------------------------------------------------------------------------------------------


async def test_a_full_queue_drops_its_oldest_rows_and_counts_them(redis_server: RedisEndpoint, prefix: str) -> None:
    async with connected(redis_server.url, prefix) as connection:
        projection = RedisProjection(connection, bounds=QueueBounds(queue_rows=3))
        for number in range(1, 6):
            projection.write(row(number))
        assert (projection.queued, projection.dropped) == (3, 2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(projection.run)
            await projection.settle()
            tasks.cancel_scope.cancel()
        assert await projection.missing([(row(n).ulid, n) for n in range(1, 6)]) == [row(1).ulid, row(2).ulid]


async def test_a_queue_is_bounded_by_its_bytes_too(redis_server: RedisEndpoint, prefix: str) -> None:
    async with connected(redis_server.url, prefix) as connection:
        projection = RedisProjection(connection, bounds=QueueBounds(queue_bytes=1000))
        for number in range(1, 5):
            projection.write(row(number, view=b"x" * 400))
        assert (projection.queued, projection.dropped) == (2, 2)


async def test_a_stopped_projection_writes_what_is_left(redis_server: RedisEndpoint, prefix: str) -> None:
    async with connected(redis_server.url, prefix) as connection:
        projection = RedisProjection(connection, bounds=QueueBounds(batch_rows=10))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(projection.run)
            await anyio.lowlevel.checkpoint()
            for number in range(1, 101):
                projection.write(row(number))
            tasks.cancel_scope.cancel()
        assert await projection.missing([(row(n).ulid, n) for n in range(1, 101)]) == []


async def test_settle_covers_rows_that_stand_behind_several_batches(redis_server: RedisEndpoint, prefix: str) -> None:
    async with running_store(redis_server.url, prefix, bounds=QueueBounds(batch_rows=7)) as store:
        await store.write(*(row(n) for n in range(1, 101)))
        assert await store.queries.count(Query(owner=OWNER)) == 100


async def test_a_server_that_forgot_the_scripts_is_sent_them_again(store: Store) -> None:
    await store.connection.command("SCRIPT", "FLUSH")
    await store.write(row(1))
    assert await views(store) == ["1@1"]


async def test_two_installations_on_one_server_do_not_meet(redis_server: RedisEndpoint, prefix: str) -> None:
    async with (
        running_store(redis_server.url, f"{prefix}a") as one,
        running_store(redis_server.url, f"{prefix}b") as two,
    ):
        await one.write(row(1))
        assert await views(two) == []
        assert isinstance(two.queries, RedisQueries)
