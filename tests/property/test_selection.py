"""Selectors against a naive reading of JSON, and the choice as a function of its facts."""

import json
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from contracts.ids import encode_ulid
from contracts.words import PresenceWord
from router.selection import Candidate, ranked
from router.selectors import selector_of, values_of_text
from tests.builders import agent

names = st.sampled_from(["a", "b", "c"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, 1.0, -1.0, 1.5]),
    st.sampled_from(["", "a", "1", "true"]),
)
maps = st.recursive(
    st.dictionaries(names, scalars | st.lists(scalars, max_size=3), max_size=3),
    lambda inner: st.dictionaries(names, inner | scalars, max_size=3),
    max_leaves=8,
)
paths = st.lists(names, min_size=1, max_size=4)
wheres = st.dictionaries(
    paths.map(lambda path: ".".join(["capabilities", *path])), scalars | st.lists(scalars, min_size=1, max_size=3),
    min_size=1, max_size=3,
)  # fmt: skip
candidates = st.lists(
    st.builds(
        Candidate,
        agent=st.integers(0, 40).map(lambda n: agent(id=f"agent_{n:012}", slug=f"a-{n}")),
        presence=st.none() | st.sampled_from(PresenceWord),
        open_executions=st.none() | st.integers(0, 5),
        is_reachable=st.booleans(),
    ),
    unique_by=lambda each: each.agent.id,
    min_size=1,
    max_size=12,
)


def canonical(value: Any) -> str:
    """A JSON value as a text that is the same for the same value; whole floats are integers."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value)


def naive(where: dict[str, Any], told: dict[str, Any]) -> bool:
    """As the documentation says it, slowly."""
    for key, wanted in where.items():
        value: Any = told
        for name in key.split(".")[1:]:
            value = value.get(name) if isinstance(value, dict) else None
        said = value if isinstance(value, list) else [value]
        anything = wanted if isinstance(wanted, list) else [wanted]
        if not {canonical(each) for each in said if not isinstance(each, dict)} & {
            canonical(each) for each in anything
        }:
            return False
    return True


@given(wheres, maps)
def test_a_selector_fits_as_a_naive_reading_says(where: dict[str, Any], told: dict[str, Any]) -> None:
    assert selector_of(where).fits(agent(capabilities=told)) is naive(where, told)


@given(scalars.filter(lambda value: not isinstance(value, str)))
def test_the_text_of_a_scalar_stands_for_it(value: Any) -> None:
    assert selector_of({"capabilities.a": list(values_of_text("capabilities.a", json.dumps(value)))}).fits(
        agent(capabilities={"a": value})
    )


@given(candidates, st.randoms(use_true_random=False), st.integers(0, 2**64))
def test_the_order_is_a_function_of_the_facts(some: list[Candidate], random: Any, n: int) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)
    assert ranked(shuffled, encode_ulid(n)) == ranked(some, encode_ulid(n))


@given(candidates, st.integers(0, 2**64))
def test_nobody_stands_behind_one_who_is_worse(some: list[Candidate], n: int) -> None:
    presences = [PresenceWord.ONLINE, PresenceWord.STALE, PresenceWord.OFFLINE]

    def badness(each: Candidate) -> tuple[bool, int, int]:
        presence = each.presence or PresenceWord.OFFLINE
        return not each.is_reachable, presences.index(presence), each.open_executions or 0

    order = [badness(each) for each in ranked(some, encode_ulid(n))]
    assert order == sorted(order)


def test_equals_are_chosen_equally_often() -> None:
    equals = [
        Candidate(agent=agent(id=f"agent_{n:012}", slug=f"a-{n}"), presence=PresenceWord.ONLINE, open_executions=0)
        for n in range(10)
    ]
    chosen = Counter(ranked(equals, encode_ulid(n))[0].agent.id for n in range(2_000))
    assert len(chosen) == 10
    assert all(140 < n < 260 for n in chosen.values())
