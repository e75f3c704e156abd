"""An owner's log of events: read, held open, streamed; and the part of it that concerns one agent."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal, TypeAlias

from fastapi import APIRouter, Query, Request, Response

from contracts.records import Agent, JsonObject, Principal
from contracts.tenant_events import EventFilter, EventPage, EventType, StoredEvent
from gateway.auth import authorize
from gateway.event_queue import entry
from gateway.parts import Rooms
from gateway.peer_events import TheirEvents
from gateway.peer_views import is_peers_client
from gateway.ports import EventLog
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_subscriptions import AgentEventPage, TenantEventPage
from gateway.sse import LAST_STREAM_S, MAX_SEQ, EventSource, last_event_id, opening
from gateway.subscriptions import FOREIGN_TYPES, known_types, unknown_event_type
from router.dispatch import event_view, with_body

endpoints = APIRouter(route_class=StrictRoute, tags=["events"])

After: TypeAlias = Annotated[int, Query(ge=0, le=MAX_SEQ)]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=1_000)]
ForS: TypeAlias = Annotated[
    float, Query(gt=0, le=LAST_STREAM_S, allow_inf_nan=False, description="The stream ends after so many seconds.")
]
Concerned: TypeAlias = Annotated[str | None, Query(description="Only what concerns this agent of one's own.")]
LONG_WAIT_S: Final = 30.0
_EVENT: Final = {
    "type": "object",
    "description": "One event of the stream; `data` is JSON.",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data", "retry")},
}
STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Server-sent events.", "content": {"text/event-stream": {"schema": _EVENT}}}
}


@endpoints.get("/v1/events", responses={200: {"model": TenantEventPage}})
async def read_events(
    request: Request,
    caller: Caller,
    house: House,
    after: After = 0,
    limit: Limit = 100,
    type: str | None = None,  # noqa: A002 - the query's name
    agent: Concerned = None,
    wait_s: Annotated[float, Query(ge=0, le=60, allow_inf_nan=False)] = 0,
) -> Answer:
    """One's own events behind `after`, oldest first. `wait_s` holds an empty answer until something happens."""
    wanted = await _wanted(type, agent, caller, house)
    page = await _page(wanted, after, limit, wait_s, house, request)
    next_after = page.events[-1].seq if page.events else after
    return Answer(
        {"events": [entry(each) for each in page.events], "next_after": next_after, "has_more": page.has_more}
    )


@endpoints.get("/v1/events/stream", response_class=Response, responses=STREAM)
async def stream_events(
    request: Request,
    caller: Caller,
    house: House,
    after: After | None = None,
    type: str | None = None,  # noqa: A002 - the query's name
    agent: Concerned = None,
    for_s: ForS = LAST_STREAM_S,
) -> EventSource:
    """One's own events as they happen; with `Last-Event-ID` or `after` all since then, without from now on."""
    wanted = await _wanted(type, agent, caller, house)
    given = last_event_id(request.headers)
    start = given if given is not None else after
    if start is None:
        start = await house.parts.events.last_seq()
    return source_of(lambda: _frames(wanted, start, house), request, caller, house, for_s)


@endpoints.get("/v1/agents/{ref}/events", responses={200: {"model": AgentEventPage}})
async def read_agent_events(
    ref: str,
    request: Request,
    caller: Caller,
    house: House,
    since: After = 0,
    limit: Limit = 100,
    event_type: str | None = None,
    wait: Literal["long"] | None = None,
) -> Answer:
    """The events that concern one agent. Asking for more acknowledges what its pull subscriptions were given."""
    agent = await house.directory.find(ref, caller, action="events.read", field="ref")
    wanted = EventFilter(owner=agent.owner, agent_id=agent.id, type=_type(event_type, "event_type"))
    if since:
        await house.subscriptions.acknowledge_read(agent, since, wanted.type)
    is_narrowed = event_type is not None or not is_peers_client(request.scope["headers"])
    log = house.parts.events if is_narrowed else TheirEvents(house.parts.events)
    page = await _page(wanted, since, limit, LONG_WAIT_S if wait else 0, house, request, log)
    views = [await _agent_view(each, agent, caller, house) for each in page.events]
    next_cursor = page.events[-1].seq if page.events else None
    return Answer({"events": views, "next_cursor": next_cursor, "has_more": page.has_more})


def source_of(frames: Any, request: Request, caller: Principal, house: Rooms, for_s: float) -> EventSource:
    """The response of a stream that ends when the caller's key is revoked."""

    check = house.authenticator.check_of(request.scope["headers"])
    return EventSource(frames, streams=house.streams, owner=caller.owner, check=check, for_s=for_s)


async def _wanted(kind: str | None, agent: str | None, caller: Principal, house: Rooms) -> EventFilter:
    found = await house.directory.narrowed(agent, caller, action="events.read", field="agent")
    return EventFilter(owner=caller.owner, agent_id=found.id if found else None, type=_type(kind, "type"))


async def _frames(wanted: EventFilter, after: int, house: Rooms) -> AsyncGenerator[bytes, None]:
    yield opening(after)
    async with aclosing(house.parts.events.tell(wanted, after=after)) as batches:
        async for batch in batches:
            yield b"".join([each.frame for each in batch])


async def _page(
    wanted: EventFilter,
    after: int,
    limit: int,
    wait_s: float,
    house: Rooms,
    request: Request,
    log: EventLog | TheirEvents | None = None,
) -> EventPage:
    log = log or house.parts.events
    page = await log.read(wanted, after=after, limit=limit)
    if page.events or not wait_s:
        return page
    check = house.authenticator.check_of(request.scope["headers"])
    async with house.holds.at_most(wait_s, request.receive, check):
        async with aclosing(log.follow(wanted, after=after)) as batches:
            async for batch in batches:
                if batch:
                    page = _first(batch, limit)
                    break
    return page


def _first(batch: Sequence[StoredEvent], limit: int) -> EventPage:
    return EventPage(events=tuple(batch[:limit]), has_more=len(batch) > limit)


async def _agent_view(event: StoredEvent, agent: Agent, caller: Principal, house: Rooms) -> JsonObject:
    view = event_view(event)
    may_read = event.type == EventType.MESSAGE_DELIVERED and authorize(caller, "message.read", agent.owner, agent)
    if not may_read or not await house.subscriptions.wants_body(agent, event.type):
        return view
    standing = await house.parts.service.find_message(event.data["message_id"], caller)
    return with_body(view, standing.history.message.body)


def _type(text: str | None, field: str) -> str | None:
    """A type as a filter; None for all. Raises `Malformed` (`unknown_event_type`)."""
    if text in (None, "", "*"):
        return None
    if text not in known_types() | FOREIGN_TYPES:
        raise unknown_event_type(field)
    return text
