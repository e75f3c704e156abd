"""Dead letters at one's agents: listed with their traces, counted, surveyed before a redrive, discarded."""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import anyio

from contracts.errors import Conflict, NotFound, PostroomError, Rejected
from contracts.records import Decision, JsonObject, Principal
from contracts.redrives import DeadLetterFilter
from contracts.words import Channel, Reason, State
from gateway.auth import authorize
from gateway.directory import Directory
from gateway.ports import Queries
from gateway.schemas_dead_letters import FilterBody, Selection
from router.dead_letter_search import Found, find_dead_letters
from router.dead_letters import is_redrivable
from router.explain import decision_view
from router.service import Service, Standing
from router.store_ports import DeadLetterIndex

AT_ONCE: Final = 16
"""Messages read or discarded side by side: they share the ledger's group commits."""
SURVEY_ROWS: Final = 20_000
SEARCH_ROWS: Final = 200
SEARCHES: Final = 200
SAMPLES: Final = 10
DISCARD_AT_ONCE: Final = 1_000

Group = tuple[str, str, str, str]
"""Agent, its slug, state and reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Whose dead letters are meant, and which: those that fit a filter, or those of these ids."""

    owner: str
    wanted: DeadLetterFilter | None = None
    message_ids: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Survey:
    """What was found: counted in groups, with one message of each group and wish to ask the gates about."""

    groups: Counter[Group] = field(default_factory=Counter)
    candidates: dict[tuple[str, str, str], str] = field(default_factory=dict)
    message_ids: list[str] = field(default_factory=list)
    left_out: int = 0
    is_exact: bool = True

    def add(self, view: JsonObject) -> None:
        to = view["to"]
        self.groups[to["agent_id"], to["slug"], view["state"], view["reason"]] += 1
        self.candidates.setdefault((to["agent_id"], view["delivery_mode"], view["live_fallback_mode"]), view["id"])

    @property
    def matched(self) -> int:
        return self.groups.total()


@dataclass(slots=True, kw_only=True)
class Discarding:
    """What came of discarding several."""

    discarded: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    has_more: bool = False


class DeadLetters:
    """Everything here is the receiving side's."""

    def __init__(self, *, index: DeadLetterIndex, queries: Queries, service: Service, directory: Directory) -> None:
        self._index = index
        self._queries = queries
        self._service = service
        self._directory = directory

    async def chosen(self, selection: Selection, caller: Principal) -> Chosen:
        """Raises `NotFound` for an agent the caller cannot act for."""
        if selection.message_ids is not None:
            return Chosen(owner=caller.owner, message_ids=tuple(selection.message_ids))
        return await self.chosen_by(selection.filter or FilterBody(), caller, "message.discard")

    async def chosen_by(self, body: FilterBody, caller: Principal, action: str) -> Chosen:
        agent = None
        if body.agent is not None:
            agent = await self._directory.find(body.agent, caller, action=action, field="agent")
        wanted = DeadLetterFilter(
            agent_id=agent.id if agent else None,
            states=tuple(State(word) for word in body.states),
            reasons=tuple(Reason(word) for word in body.reasons),
            channel=Channel(body.channel) if body.channel else None,
            since=body.since,
            until=body.until,
        )
        return Chosen(owner=agent.owner if agent else caller.owner, wanted=wanted)

    async def page(
        self, chosen: Chosen, caller: Principal, *, limit: int, after: int | None
    ) -> tuple[list[JsonObject], int | None]:
        """Views with their traces, newest first, and where to go on; what has moved on since is left out."""
        found = await self._found(chosen, limit=limit, after=after)
        views: list[JsonObject | None] = [None] * len(found.views)

        async def read(place: int) -> None:
            standing = await self._service.find_message(found.views[place]["id"], caller)
            views[place] = standing.explained if is_redrivable(standing.execution) else None

        await _side_by_side(read, len(views))
        return [view for view in views if view is not None], found.next_after

    async def survey(self, chosen: Chosen, caller: Principal) -> Survey:
        """Count what is meant; of a filter up to twenty thousand, then `is_exact` is false."""
        survey = Survey()
        if chosen.wanted is None:
            await self._survey_named(chosen, caller, survey)
            return survey
        async with aclosing(self._pages(chosen, limit=SURVEY_ROWS)) as pages:
            async for found in pages:
                for view in found.views:
                    survey.add(view)
                survey.is_exact = found.next_after is None
        return survey

    async def samples(self, survey: Survey, caller: Principal) -> list[JsonObject]:
        """What the gates say now of one message of each agent and wish, ten at most."""
        told = []
        for message_id in list(survey.candidates.values())[:SAMPLES]:
            try:
                decision = await self._service.would_redrive(message_id, caller)
            except (Conflict, NotFound):
                continue  # it has moved on since it was counted
            told.append(await self._sample(message_id, decision, caller))
        return told

    async def discard(self, chosen: Chosen, reason: str, caller: Principal) -> Discarding:
        """Discard up to a thousand; the first thousand of a filter."""
        message_ids, result = list(chosen.message_ids), Discarding()
        if chosen.wanted is not None:
            async with aclosing(self._pages(chosen, limit=DISCARD_AT_ONCE)) as pages:
                async for found in pages:
                    message_ids += [view["id"] for view in found.views]
                    result.has_more = found.next_after is not None

        async def discard(place: int) -> None:
            try:
                await self._service.discard(message_ids[place], reason, caller)
                result.discarded += 1
            except Rejected as refusal:
                result.refused[refusal.code] += 1

        await _side_by_side(discard, len(message_ids))
        return result

    async def _found(self, chosen: Chosen, *, limit: int, after: int | None) -> Found:
        await self._queries.settle()
        wanted = chosen.wanted or DeadLetterFilter()
        return await find_dead_letters(self._index, chosen.owner, wanted, limit=limit, after=after)

    async def _pages(self, chosen: Chosen, *, limit: int) -> AsyncGenerator[Found, None]:
        """More than one search looks for, with bounded work all the same, and never many texts in memory at once."""
        after, n_found = None, 0
        for _ in range(SEARCHES):
            found = await self._found(chosen, limit=min(SEARCH_ROWS, limit - n_found), after=after)
            yield found
            after, n_found = found.next_after, n_found + len(found.views)
            if after is None or n_found >= limit:
                break

    async def _survey_named(self, chosen: Chosen, caller: Principal, survey: Survey) -> None:
        standings: list[Standing | None] = [None] * len(chosen.message_ids)

        async def read(place: int) -> None:
            try:
                standings[place] = await self._service.find_message(
                    chosen.message_ids[place], caller, "message.redrive"
                )
            except NotFound:
                standings[place] = None

        await _side_by_side(read, len(standings))
        for standing in standings:
            if standing is None or not _is_meant(standing, chosen.owner, caller):
                survey.left_out += 1
            else:
                survey.add(standing.view)
                survey.message_ids.append(standing.history.message.id)

    async def _sample(self, message_id: str, decision: Decision, caller: Principal) -> JsonObject:
        standing = await self._service.find_message(message_id, caller, "message.redrive")
        return {
            "message_id": message_id,
            "agent_id": standing.history.message.agent_id,
            "would": "redrive" if decision.ending is None else "refuse",
            **decision_view(decision),
        }


def _is_meant(standing: Standing, owner: str, caller: Principal) -> bool:
    receiver = standing.history.message.agent_owner
    return is_redrivable(standing.execution) and receiver == owner and authorize(caller, "message.discard", receiver)


async def _side_by_side(step: Callable[[int], Awaitable[None]], count: int) -> None:
    """Take this step for every place, so many at once."""
    places, failures = iter(range(count)), list[PostroomError]()

    async def take_turns() -> None:
        for place in places:
            try:
                await step(place)
            except PostroomError as error:
                failures.append(error)
                return

    async with anyio.create_task_group() as group:
        for _ in range(min(AT_ONCE, count)):
            group.start_soon(take_turns)
    if failures:
        raise failures[0]
