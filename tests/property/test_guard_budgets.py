"""Of traffic among agents, counted in a real Valkey: healthy hubs are never refused, loops and cascades always end.

None of these messages has a telling chain: loops that answer nothing start anew with each message, and a cascade has
many short ways. What stops them is what is counted of pairs and threads.
"""

import itertools
import time
from collections.abc import Iterable, Iterator
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.records import Context, Sender
from infra.embedded import RedisEndpoint
from infra.guard_counters import RedisGuards
from router.guards import GuardLimits, Passage, budgets_of, guard_chain, refusal_in
from tests.redis_rows import connected

LIMITS = GuardLimits()
PER_PAIR, PER_THREAD = int(LIMITS.pair_per_min), int(LIMITS.thread_per_h)
numbers = itertools.count(1)
on_real_valkey = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Seeded when it is drawn: what draws later would end an example in the middle of a running test, and its event loop.
SHUFFLES = st.randoms(use_true_random=True)

Sent = tuple[str, str]
"""From whom, to whom."""


def passage(sent: Sent, *, thread: str | None = None) -> Passage:
    sender, to = sent
    context = Context(thread_id=thread)
    return Passage(sender=Sender(owner="max", key_id="k", agent_id=sender), recipient_id=to, context=context)


async def is_let_through(guards: RedisGuards, asked: Passage) -> bool:
    """As the router decides: what the message alone says, then what is counted, all spent or none."""
    if refusal_in(guard_chain(asked, LIMITS)):
        return False
    facts = await guards.ask(budgets_of(asked, LIMITS), spend=True)
    assert facts is not None
    return all(fact.admits for fact in facts)


async def refusals(guards: RedisGuards, traffic: Iterable[Sent], *, thread: str | None = None) -> list[Sent]:
    return [sent for sent in traffic if not await is_let_through(guards, passage(sent, thread=thread))]


@on_real_valkey
@given(workers=st.integers(1, 40), tasks=st.integers(1, PER_PAIR), order=SHUFFLES)
async def test_a_hub_that_gives_each_worker_a_task_a_second_is_never_refused(
    redis_server: RedisEndpoint, prefix: str, workers: int, tasks: int, order: Random
) -> None:
    hub = f"hub{next(numbers)}"
    each = min(tasks, 600 // workers)
    traffic = [pair for n in range(workers) for pair in ((hub, f"{hub}w{n}"), (f"{hub}w{n}", hub)) for _ in range(each)]
    order.shuffle(traffic)
    async with connected(redis_server.url, prefix) as connection:
        assert await refusals(RedisGuards(connection), traffic) == []


@on_real_valkey
@given(workers=st.integers(1, 50))
async def test_a_task_that_fifty_workers_share_fits_into_its_thread(
    redis_server: RedisEndpoint, prefix: str, workers: int
) -> None:
    hub = f"hub{next(numbers)}"
    rounds = PER_THREAD // (2 * workers)
    traffic = [pair for n in range(workers) for pair in ((hub, f"{hub}w{n}"), (f"{hub}w{n}", hub))]
    async with connected(redis_server.url, prefix) as connection:
        thread = f"msg_{hub}"
        assert await refusals(RedisGuards(connection), traffic * min(rounds, PER_PAIR), thread=thread) == []


@on_real_valkey
@given(size=st.integers(2, 6))
async def test_a_ring_that_answers_nothing_stops_when_its_first_pair_is_used_up(
    redis_server: RedisEndpoint, prefix: str, size: int
) -> None:
    ring = [f"ring{next(numbers)}-{n}" for n in range(size)]
    laps = list(zip(ring, ring[1:] + ring[:1], strict=True))
    async with connected(redis_server.url, prefix) as connection:
        guards, started = RedisGuards(connection), time.monotonic()
        passed = 0
        for sent in itertools.cycle(laps):
            if not await is_let_through(guards, passage(sent)):
                break
            passed += 1
            # A pair gains a message a second while the ring goes round.
            assert passed <= (PER_PAIR + 1 + time.monotonic() - started) * size
        assert passed >= PER_PAIR * size
        # And it stays stopped: the guard rests, whatever its bucket has gained meanwhile.
        assert await refusals(guards, [sent] * 5) == [sent] * 5


@on_real_valkey
@given(branches=st.integers(2, 5))
async def test_a_cascade_in_one_thread_stops_however_it_branches(
    redis_server: RedisEndpoint, prefix: str, branches: int
) -> None:
    name = f"cascade{next(numbers)}"
    async with connected(redis_server.url, prefix) as connection:
        guards = RedisGuards(connection)
        passed = 0
        for sent in cascade(name, branches):
            if not await is_let_through(guards, passage(sent, thread=f"msg_{name}")):
                break
            passed += 1
            assert passed <= PER_THREAD + 5
        assert passed >= PER_THREAD


def cascade(name: str, branches: int) -> Iterator[Sent]:
    """Everybody who is asked asks so many others, who were asked nothing before."""
    agents = itertools.count(1)
    waiting = [f"{name}-0"]
    while True:
        asked = [(waiting[0], f"{name}-{next(agents)}") for _ in range(branches)]
        waiting = waiting[1:] + [to for _, to in asked]
        yield from asked
