"""What a list of executions may be narrowed by, and how it is found with bounded work.

Owner, agents, channel and states have indexes. Everything else is looked up in the views, page by page, newest first:
a page may then hold fewer rows than asked for, and a cursor to go on with.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from pydantic_core import from_json

from contracts.errors import Malformed
from contracts.records import JsonObject
from contracts.words import State
from gateway.peer_executions import STATES_OF, cue_id_of, has_evidence, status_of, task_of, triggered_by
from gateway.ports import Queries, Query

PAGE_ROWS: Final = 200
MAX_ROWS: Final = 2_000
"""Views one request may look through; reading one costs about 20 µs."""
SKEW: Final = timedelta(minutes=1)
"""How far `accepted_at` of neighbours in the ledger may be out of order: the clocks of several gateways."""

Filter = Callable[[JsonObject], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """The filters without an index; None and empty ask for nothing."""

    statuses: tuple[str, ...] = ()
    outcome_state: str | None = None
    has_evidence: bool | None = None
    since: datetime | None = None
    until: datetime | None = None
    task: str | None = None
    worker_id: str | None = None
    cue_id: str | None = None
    triggered_by: str | None = None

    @property
    def is_empty(self) -> bool:
        return self == Narrowing()

    def takes(self, view: JsonObject) -> bool:
        return (
            (not self.statuses or status_of(view) in self.statuses)
            and (self.outcome_state is None or (view["outcome"] or {}).get("state") == self.outcome_state)
            and (self.has_evidence is None or has_evidence(view) is self.has_evidence)
            and (self.since is None or _accepted_at(view) >= self.since)
            and (self.until is None or _accepted_at(view) <= self.until)
            and (self.task is None or task_of(view) == self.task)
            and (self.worker_id is None or (view["lease"] or {}).get("holder") == self.worker_id)
            and (self.cue_id is None or cue_id_of(view) == self.cue_id)
            and (self.triggered_by is None or triggered_by(view) == self.triggered_by)
        )

    def is_past(self, view: JsonObject) -> bool:
        """Whether nothing older than `view` can be taken any more."""
        return self.since is not None and self.since - _accepted_at(view) > SKEW


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Views in order, and the cursor to go on with; None when there is no more."""

    views: list[JsonObject]
    next_after: int | None


def statuses_asked(status: str | None, status_in: str | None) -> tuple[str, ...]:
    """The peer's two ways to ask for a status as one.

    Raises `Malformed`: `conflicting_filters` for both at once, `invalid_status_in` for a word of a list there is not.
    A single word there is not is kept: nothing has that status.
    """
    if status is not None and status_in is not None:
        raise Malformed("conflicting_filters", "Send status or status__in.", field="status__in")
    if status_in is None:
        return () if status is None else (status,)
    words = tuple(dict.fromkeys(status_in.split(",")))
    if any(word not in STATES_OF for word in words):
        raise Malformed("invalid_status_in", f"Each word is one of: {', '.join(STATES_OF)}.", field="status__in")
    return words


def states_asked(states: tuple[State, ...], statuses: tuple[str, ...]) -> tuple[State, ...] | None:
    """The states to ask the store for; None when nothing can be in both."""
    if not statuses:
        return states
    of_statuses = dict.fromkeys(state for status in statuses for state in STATES_OF.get(status, ()))
    both = tuple(state for state in of_statuses if not states or state in states)
    return both or None


async def search(
    queries: Queries, query: Query, takes: Filter, *, skip: int = 0, is_past: Filter = lambda _: False
) -> Found:
    """Up to `query.limit` views that `takes` lets through, after the first `skip` of them."""
    taken: list[JsonObject] = []
    looked_at, wanted, after = 0, skip + query.limit, query.after
    while True:
        # Never more rows than are wanted, so that the page's cursor is behind the last row that was used.
        page = await queries.page(replace(query, after=after, limit=min(PAGE_ROWS, wanted - len(taken))))
        views = [from_json(view) for view in page.views]
        taken += [view for view in views if takes(view)]
        looked_at, after = looked_at + len(views), page.next_after
        if views and is_past(views[-1]):
            after = None
        if after is None or len(taken) >= wanted or looked_at >= MAX_ROWS or not views:
            return Found(views=taken[skip:], next_after=after)


def _accepted_at(view: JsonObject) -> datetime:
    return datetime.fromisoformat(view["accepted_at"])
