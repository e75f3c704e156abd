"""Looking for what can be claimed: bounded work for each look, and nothing hidden for ever behind other rows."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, cast

from pydantic_core import to_json

from contracts.errors import Conflict
from contracts.records import JsonObject
from contracts.words import State
from gateway.claimable import LAST_ROWS, SERVED_IN_A_ROW, Claimables
from gateway.execution_search import MAX_ROWS, PAGE_ROWS, Filter
from gateway.ports import Page, Query
from router.service import Service

QUERY = Query(owner="max", states=(State.QUEUED,), limit=50, oldest_first=True)


class Rows:
    """So many rows that wait, the oldest first: row `n` is for the agent `agents[n % len(agents)]`."""

    def __init__(self, count: int, agents: Sequence[str] = ("a",)) -> None:
        self.numbers = list(range(count))
        self.agents = agents
        self.looked_at = 0

    async def page(self, query: Query) -> Page:
        order = self.numbers if query.oldest_first else self.numbers[::-1]
        left = [number for number in order if query.after is None or number > query.after]
        shown = left[: query.limit]
        self.looked_at += len(shown)
        return Page(
            views=tuple(self._view(number) for number in shown),
            next_after=shown[-1] if len(left) > len(shown) else None,
        )

    async def count(self, query: Query) -> int:
        raise NotImplementedError

    async def received_before(self, owner: str, instants: Sequence[datetime]) -> tuple[int, ...]:
        raise NotImplementedError

    async def settle(self) -> None:
        raise NotImplementedError

    def _view(self, number: int) -> bytes:
        return to_json({"n": number, "to": {"agent_id": self.agents[number % len(self.agents)]}})


class Idle:
    """Of the router's service: which agents are given nothing new."""

    def __init__(self, idle: Collection[str] = ()) -> None:
        self.idle = idle
        self.asked: list[str] = []

    async def obstacle_at(self, agent_id: str) -> Conflict | None:
        self.asked.append(agent_id)
        return Conflict("agent_inactive", "") if agent_id in self.idle else None


def desk(rows: Rows, service: Idle | None = None) -> Claimables:
    return Claimables(rows, cast(Service, service or Idle()))


def only(*numbers: int) -> Filter:
    return lambda view: view["n"] in numbers


async def until_found(claimables: Claimables, takes: Filter, looks: int, what: str = "x") -> list[Any]:
    """What the first look that finds something finds, of so many."""
    for _ in range(looks):
        look = await claimables.look(QUERY, takes, what=what)
        if look.views:
            return numbers(look.views)
    return []


def numbers(views: Sequence[JsonObject]) -> list[Any]:
    return [view["n"] for view in views]


async def test_what_is_for_nobody_who_asks_hides_nothing_however_much_it_is() -> None:
    rows = Rows(5 * MAX_ROWS + 100)

    assert await until_found(desk(rows), only(4 * MAX_ROWS + 7), looks=5) == [4 * MAX_ROWS + 7]


async def test_one_look_goes_through_a_bounded_number_of_rows_and_says_that_there_are_more() -> None:
    rows = Rows(3 * MAX_ROWS)

    look = await desk(rows).look(QUERY, only(), what="x")

    assert look.is_partial
    assert rows.looked_at <= MAX_ROWS + PAGE_ROWS + LAST_ROWS


async def test_what_came_last_is_found_at_once() -> None:
    rows = Rows(5 * MAX_ROWS)

    assert await until_found(desk(rows), only(5 * MAX_ROWS - 1), looks=1) == [5 * MAX_ROWS - 1]


async def test_rows_of_idle_agents_are_passed_over_and_each_agent_is_asked_about_once() -> None:
    rows, service = Rows(MAX_ROWS, agents=[*"bcdefghijklmnopqrstuvwxyz", "a"]), Idle("bcdefghijklmnopqrstuvwxyz")

    look = await desk(rows, service).look(QUERY, lambda _: True, what="x")

    assert numbers(look.views) == list(range(25, 26 * 50, 26))
    assert sorted(service.asked) == sorted(set(service.asked))
    assert rows.looked_at <= 26 * 50 + PAGE_ROWS


async def test_an_older_row_that_is_due_again_waits_for_a_few_claims_and_not_for_ever() -> None:
    rows = Rows(5 * MAX_ROWS)
    claimables, deep = desk(rows), set(range(3 * MAX_ROWS, 5 * MAX_ROWS))
    due = set(deep)
    claimed = []
    for _ in range(SERVED_IN_A_ROW + 8):
        if found := await until_found(claimables, lambda view: view["n"] in due, looks=1):
            claimed.append(found[0])
            due.discard(found[0])
            due.add(1)

    assert 1 in claimed
    assert len(claimed) > SERVED_IN_A_ROW


async def test_different_questions_go_on_at_places_of_their_own() -> None:
    claimables = desk(Rows(2 * MAX_ROWS + 100))
    await claimables.look(QUERY, only(), what="one")

    assert await until_found(claimables, only(3), looks=1, what="another") == [3]


async def test_after_the_last_row_a_look_begins_with_the_first() -> None:
    claimables = desk(Rows(MAX_ROWS + PAGE_ROWS + 100))
    first = await claimables.look(QUERY, only(), what="x")
    second = await claimables.look(QUERY, only(), what="x")

    assert (first.is_partial, second.is_partial) == (True, False)
    assert await until_found(claimables, only(3), looks=1) == [3]
