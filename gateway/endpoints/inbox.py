"""An agent's inbox, polled or long-polled, and what it sent."""

from typing import Annotated, Final, Literal, TypeAlias

from fastapi import APIRouter, Query, Request

from contracts.words import Channel, State
from gateway.cursor import read_number, write_number
from gateway.list_filters import Asked, inbox_states, sent_states
from gateway.lists import hand_out, page_body, spelled
from gateway.mailbox import gathered
from gateway.paging import Offset, asks_for_total, page_behind, total_of
from gateway.parts import Parts, Rooms
from gateway.peer_views import is_peers_client
from gateway.ports import Page
from gateway.ports import Query as ListQuery
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_conversation import InboxCount, InboxPage
from gateway.wake import Wake, wake_of

endpoints = APIRouter(route_class=StrictRoute, tags=["inbox"])

Limit = Annotated[int, Query(ge=1, le=200)]
Order: TypeAlias = Annotated[
    Literal["oldest", "newest"] | None,
    Query(description="Which comes first: the oldest, to CueAPI's clients the newest."),
]
_UNFINISHED: Final = (State.IN_INBOX, State.INBOX_DELIVERED, State.INBOX_READ)


@endpoints.get("/v1/agents/{ref}/inbox", responses={200: {"model": InboxPage | InboxCount}})
async def inbox(
    ref: str,
    request: Request,
    caller: Caller,
    house: House,
    asked: Asked,
    state: str | None = None,
    limit: Limit = 50,
    offset: Offset = 0,
    cursor: str | None = None,
    wait_s: Annotated[float, Query(ge=0, le=60, allow_inf_nan=False)] = 0,
    count_only: bool = False,
    order: Order = None,
) -> Answer:
    """What waits for an agent. Handing a message out marks it as delivered."""
    agent = await house.directory.find(ref, caller, action="inbox.read", field="ref")
    order = order or ("newest" if is_peers_client(request.scope["headers"]) else "oldest")
    scope = f"inbox:{agent.id}:{state}:{order}:{asked.scope}"
    query = ListQuery(
        owner=agent.owner,
        agent_id=agent.id,
        states=inbox_states(state) or _UNFINISHED,
        channel=Channel.INBOX,
        after=read_number(cursor, scope),
        limit=limit,
        oldest_first=order == "oldest",
    )
    query = await asked.applied(query, house.directory, caller)
    if count_only:
        await house.parts.queries.settle()
        return Answer({"count": await house.parts.queries.count(query)})
    page = await _page(query, house.parts, offset)
    if wait_s and not page.views and not offset:
        page = await _page_in_time(query, wait_s, wake_of(agent.metadata), house, request)
    total = await total_of(house.parts.queries, query, page, offset, is_asked=asks_for_total(request))
    views = spelled(await hand_out(page, house.parts.service, caller), request.scope["headers"])
    next_cursor = write_number(page.next_after, scope)
    return Answer(page_body("messages", views, next_cursor, total=total, limit=limit, offset=offset))


@endpoints.get("/v1/agents/{ref}/sent", responses={200: {"model": InboxPage}})
async def sent(
    ref: str,
    request: Request,
    caller: Caller,
    house: House,
    asked: Asked,
    state: str | None = None,
    limit: Limit = 50,
    offset: Offset = 0,
    cursor: str | None = None,
) -> Answer:
    """What an agent sent, newest first."""
    agent = await house.directory.find(ref, caller, action="sent.read", field="ref")
    scope = f"sent:{agent.id}:{state}:{asked.scope}"
    query = ListQuery(
        owner=agent.owner,
        sender_agent_id=agent.id,
        states=sent_states(state),
        after=read_number(cursor, scope),
        limit=limit,
    )
    query = await asked.applied(query, house.directory, caller)
    page = await _page(query, house.parts, offset)
    total = await total_of(house.parts.queries, query, page, offset, is_asked=asks_for_total(request))
    views, next_cursor = spelled(page.views, request.scope["headers"]), write_number(page.next_after, scope)
    return Answer(page_body("messages", views, next_cursor, total=total, limit=limit, offset=offset))


async def _page_in_time(query: ListQuery, wait_s: float, wake: Wake, house: Rooms, request: Request) -> Page:
    """The first page that is not empty, or the empty one when the time is over."""
    assert query.agent_id is not None
    page = Page(views=(), next_after=None)
    check = house.authenticator.check_of(request.scope["headers"])
    async with house.holds.at_most(wait_s, request.receive, check):
        async with house.parts.watch.inbox(query.agent_id) as arrivals:
            page = await _page(query, house.parts)
            while not page.views:
                await anext(arrivals)
                page = await _page(query, house.parts)
            if wake.is_coalesced:
                clock, queries = house.parts.clock, house.parts.queries
                page = await gathered(query, page, wake, queries=queries, arrivals=arrivals, clock=clock)
    return page


async def _page(query: ListQuery, parts: Parts, offset: int = 0) -> Page:
    await parts.queries.settle()
    return await page_behind(parts.queries, query, offset)
