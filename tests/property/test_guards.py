"""Of conversations among agents: healthy ones are never refused, and those that run away always end."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from contracts.records import Context, Message, Sender
from contracts.words import Verdict
from gateway.conversation import chain_after
from router.guards import GuardLimits, Passage, guard_chain, hops_after, refusal_in
from tests.builders import message

LIMITS = GuardLimits()
PERSON = None
Agent = str | None


def sent(sender: Agent, parent: Message | None, *, is_auto: bool = False) -> Message:
    """A message as the gateway would place it."""
    context = Context(
        reply_to=parent.id if parent else None,
        hop=hops_after(parent) if parent else 0,
        chain=chain_after(parent) if parent else (),
        is_auto_reply=is_auto,
    )
    return message(sender=Sender(owner="max", key_id="k", agent_id=sender), context=context)


def is_refused(told: Message, to: Agent, parent: Message | None, limits: GuardLimits = LIMITS) -> bool:
    answers_auto = parent is not None and parent.context.is_auto_reply
    passage = Passage(
        sender=told.sender, recipient_id=to or "person", context=told.context, answers_auto_reply=answers_auto
    )
    return refusal_in(guard_chain(passage, limits)) is not None


def length_of(senders: Sequence[Agent], *, is_auto: bool = False, limits: GuardLimits = LIMITS) -> int:
    """How many messages of a chain, each answering the one before, are let through."""
    parent: Message | None = None
    for number, (sender, to) in enumerate(pairwise(senders)):
        told = sent(sender, parent, is_auto=is_auto)
        if is_refused(told, to, parent, limits):
            return number
        parent = told
    return len(senders) - 1


@dataclass(frozen=True)
class Task:
    """Work an agent gives to another, which gives parts of it to others."""

    worker: int
    parts: tuple["Task", ...] = ()


tasks = st.recursive(
    st.builds(Task, st.integers(0, 9)),
    lambda parts: st.builds(Task, st.integers(0, 9), st.lists(parts, max_size=4).map(tuple)),
    max_leaves=12,
)


def refusals_of(task: Task, boss: str, depth: int, parent: Message | None) -> int:
    """Give a task to a worker, let it give out the parts, and let it answer: how many of the messages are refused."""
    worker = f"{depth}-{task.worker}"
    order = sent(boss, parent)
    refused = int(is_refused(order, worker, parent))
    refused += sum(refusals_of(part, worker, depth + 1, order) for part in task.parts)
    return refused + int(is_refused(sent(worker, order), boss, order))


def deep(task: Task) -> int:
    return 1 + max((deep(part) for part in task.parts), default=0)


@given(st.lists(tasks, min_size=1, max_size=6))
def test_a_hub_that_gives_out_work_of_any_shape_is_never_refused(work: list[Task]) -> None:
    for task in work:
        if deep(task) < LIMITS.max_hops:
            assert refusals_of(task, "hub", 0, None) == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8))
def test_a_hub_that_asks_one_worker_after_the_other_in_one_chain_is_never_refused(workers: list[int]) -> None:
    way = [each for worker in workers for each in ("hub", f"w{worker}")]
    assert length_of(way) == len(way) - 1


@given(st.integers(1, 40))
def test_a_person_may_talk_to_an_agent_for_as_long_as_they_like(turns: int) -> None:
    assert length_of([PERSON, "A"] * turns) == 2 * turns - 1


@given(st.lists(st.integers(2, LIMITS.max_hops), min_size=1, max_size=6))
def test_agents_whom_a_person_speaks_to_now_and_then_are_never_refused(stretches: list[int]) -> None:
    way: list[Agent] = []
    for length in stretches:
        way += [PERSON, *(("A", "B")[number % 2] for number in range(length - 1))]
    assert length_of(way) == len(way) - 1


@given(st.lists(st.sampled_from("ABCDEFGH"), min_size=200, max_size=200))
def test_a_chain_of_agents_alone_always_ends_within_the_hop_limit(way: list[str]) -> None:
    assert length_of(way) <= LIMITS.max_hops + 1


@given(st.integers(3, 5))
def test_a_ring_of_agents_ends_in_its_third_round(size: int) -> None:
    ring = [f"agent{number}" for number in range(size)]
    assert length_of(ring * 20) <= 3 * size - 1 <= LIMITS.max_hops


@given(
    size=st.integers(3, 5),
    turns=st.lists(st.integers(0, 5), max_size=4),
    by_a_person=st.booleans(),
)
def test_a_ring_ends_in_its_third_round_whatever_was_said_before(
    size: int, turns: list[int], *, by_a_person: bool
) -> None:
    """The work before it is let through, and no round of the ring after its third."""
    before: list[Agent] = [PERSON] if by_a_person else []
    for worker in turns:
        before += ["agent0", f"worker{worker}"]
    passed = length_of([*before, *[f"agent{number}" for number in range(size)] * 20])

    assert passed >= len(before)
    assert passed <= min(len(before) + 3 * size, LIMITS.max_hops + 2)


@given(size=st.integers(3, 8), asks=st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_ring_whose_agents_consult_others_on_the_way_ends_too(size: int, asks: list[bool]) -> None:
    ring: list[Agent] = []
    for number in range(size):
        ring += [f"agent{number}", *([f"expert{number}", f"agent{number}"] if asks[number] else [])]

    assert length_of(ring * 20) <= LIMITS.max_hops + 1


@given(size=st.integers(3, 7), start=st.integers(0, 6))
def test_without_a_hop_limit_a_ring_ends_all_the_same(size: int, start: int) -> None:
    """As far as a message remembers its senders: sixteen, its own sender and its receiver are three rounds of six."""
    limits = GuardLimits(max_hops=0)
    ring = [f"agent{(start + number) % size}" for number in range(size)]
    passed = length_of(ring * 20, limits=limits)

    assert passed <= 3 * size if size <= 6 else passed == 20 * size - 1


@given(st.lists(st.sampled_from(["A", "B", "C", PERSON]), min_size=3, max_size=30))
def test_automatic_replies_end_at_once(way: list[Agent]) -> None:
    assert length_of(way, is_auto=True) == 1


@given(st.lists(st.sampled_from(["A", "B", "C", PERSON]), min_size=2, max_size=40))
def test_there_is_an_answer_to_everything_and_only_the_last_says_no(way: list[Agent]) -> None:
    parent: Message | None = None
    for sender, to in pairwise(way):
        told = sent(sender, parent)
        trace = guard_chain(Passage(sender=told.sender, recipient_id=to or "p", context=told.context), LIMITS)
        assert all(each.verdict is Verdict.PASS for each in trace[:-1])
        parent = told
