"""What can be claimed now: chosen among the rows that wait, and shown with enough to claim with."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from pydantic_core import from_json

from contracts.records import JsonObject, Principal
from contracts.words import Channel, State
from gateway.execution_search import MAX_ROWS, PAGE_ROWS, Filter
from gateway.peer_executions import claimable_fields, task_of
from gateway.ports import Queries, Query
from router.explain import instant
from router.service import Service

LAST_ROWS: Final = 50
SERVED_IN_A_ROW: Final = 16
MAX_PLACES: Final = 1_000


def claimable_at(now: datetime, *, task: str | None = None) -> Filter:
    """Lets through what a claim at `now` finds neither too early nor too late, of one task or of any.

    Views hold instants cut to whole milliseconds, as texts that sort like them. So is `now` here, and what is equal
    counts as too early and as too late: what is let through can be claimed.
    """
    text = instant(now) or ""

    def takes(view: JsonObject) -> bool:
        return (task is None or task_of(view) == task) and _is_open(view, text)

    return takes


def _is_open(view: JsonObject, now: str) -> bool:
    if view["state"] == State.OFFERED:
        return view["deadline_at"] is None or bool(view["deadline_at"] > now)
    # A row of an older program does not say when the next attempt is due.
    return bool((view.get("retry_at") or "") < now < view["expires_at"])


@dataclass(slots=True)
class _Place:
    """Where the next look for the same begins: behind rows in which there was nothing for whoever asked."""

    after: int | None = None
    served: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look found. `is_partial`: there are rows it has not seen, and the next one goes on with them."""

    views: list[JsonObject]
    is_partial: bool


class Claimables:
    """Looks for what can be claimed at agents that may be given something new; what waits longest comes first.

    A look goes through about `MAX_ROWS` rows. Where there was nothing in them, the next look for the same goes on
    behind them, whoever asks, until the last row has been seen: so rows that are not for a worker hide none that are,
    however many they are. What came last is looked at as well, for that is what wakes who waits. After
    `SERVED_IN_A_ROW` looks that found something behind the first rows it begins anew: one of those may be due again.
    """

    def __init__(self, queries: Queries, service: Service) -> None:
        self._queries = queries
        self._service = service
        self._places: dict[Hashable, _Place] = {}

    async def look(self, query: Query, takes: Filter, *, what: Hashable) -> Look:
        """Up to `query.limit` views that `takes` lets through. `what` is equal where `takes` is for the same."""
        question = (query.owner, query.agent_id, query.states, what)
        place = self._places.get(question, _Place())
        at_work = _Work(takes, self._service)
        views, after = await self._from(replace(query, after=place.after), at_work)
        self._go_on(question, place, after, is_served=bool(views))
        if not views and after is not None:
            newest = replace(query, after=None, oldest_first=False, limit=LAST_ROWS)
            views = await at_work.let_through((await self._queries.page(newest)).views)
        return Look(views=views[: query.limit], is_partial=after is not None)

    async def _from(self, query: Query, at_work: "_Work") -> tuple[list[JsonObject], int | None]:
        """Up to `query.limit` views, and the cursor to go on with where there are more rows."""
        views: list[JsonObject] = []
        looked_at, after, rows = 0, query.after, min(query.limit, PAGE_ROWS)
        while True:
            page = await self._queries.page(replace(query, after=after, limit=rows))
            views += await at_work.let_through(page.views)
            looked_at, after, rows = looked_at + len(page.views), page.next_after, PAGE_ROWS
            if after is None or len(views) >= query.limit or looked_at >= MAX_ROWS or not page.views:
                return views, after

    def _go_on(self, question: Hashable, place: _Place, after: int | None, *, is_served: bool) -> None:
        self._places.pop(question, None)
        if not is_served:
            following = _Place(after)
        else:
            following = _Place(place.after if place.served + 1 < SERVED_IN_A_ROW else None, place.served + 1)
        if following.after is not None:
            if len(self._places) >= MAX_PLACES:
                self._places.pop(next(iter(self._places)))
            self._places[question] = following


class _Work:
    """One look's filter; what it has found out of agents it asks once."""

    def __init__(self, takes: Filter, service: Service) -> None:
        self._takes = takes
        self._service = service
        self._is_idle: dict[str, bool] = {}

    async def let_through(self, views: Sequence[bytes]) -> list[JsonObject]:
        found = [view for view in map(from_json, views) if self._takes(view)]
        return [view for view in found if not await self._idle(view["to"]["agent_id"])]

    async def _idle(self, agent_id: str) -> bool:
        if agent_id not in self._is_idle:
            self._is_idle[agent_id] = await self._service.obstacle_at(agent_id) is not None
        return self._is_idle[agent_id]


async def claimable_view(view: JsonObject, caller: Principal, service: Service) -> dict[str, Any]:
    channel = Channel.LIVE if view["state"] == State.OFFERED else Channel.BG
    return {
        "execution_id": view["execution_id"],
        "message_id": view["id"],
        "agent_id": view["to"]["agent_id"],
        "channel": channel.value,
        **await _offer(view["execution_id"], channel, caller, service),
        **claimable_fields(view),
    }


async def _offer(execution_id: str, channel: Channel, caller: Principal, service: Service) -> JsonObject:
    """The nonce is derived from the exact instant the window closes, which only the ledger knows."""
    before = None
    if channel is Channel.LIVE:
        before = (await service.find_execution(execution_id, caller, "execution.claim")).execution.claim_before
    nonce = service.nonce(execution_id, before) if before else None
    return {"nonce": nonce, "claim_before": instant(before)}
