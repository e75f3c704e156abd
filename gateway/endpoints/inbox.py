"""An agent's inbox, polled or long-polled, and what it sent."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.types import Receive

from contracts.words import Channel, State
from gateway.cursor import read_number, write_number
from gateway.list_filters import Asked, sent_states
from gateway.lists import hand_out, page_body, spelled
from gateway.mailbox import gathered
from gateway.parts import Parts, Rooms
from gateway.ports import Page
from gateway.ports import Query as ListQuery
from gateway.routing import Answer, Caller, House, StrictRoute, words
from gateway.schemas_views import InboxCount, InboxPage
from gateway.wake import Wake, wake_of

endpoints = APIRouter(route_class=StrictRoute, tags=["inbox"])

Limit = Annotated[int, Query(ge=1, le=200)]
STATES: Final = {
    "queued": State.IN_INBOX,
    "delivered": State.INBOX_DELIVERED,
    "read": State.INBOX_READ,
    "acked": State.DELIVERED,
}
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
    cursor: str | None = None,
    wait_s: Annotated[float, Query(ge=0, le=60, allow_inf_nan=False)] = 0,
    count_only: bool = False,
) -> Answer:
    """What waits for an agent, oldest first. Handing a message out marks it as delivered."""
    agent = await house.directory.find(ref, caller, action="inbox.read", field="ref")
    scope = f"inbox:{agent.id}:{state}:{asked.scope}"
    query = ListQuery(
        owner=agent.owner,
        agent_id=agent.id,
        states=words(state, STATES, "state") or _UNFINISHED,
        channel=Channel.INBOX,
        after=read_number(cursor, scope),
        limit=limit,
        oldest_first=True,
    )
    query = await asked.applied(query, house.directory, caller)
    if count_only:
        await house.parts.queries.settle()
        return Answer({"count": await house.parts.queries.count(query)})
    page = await _page(query, house.parts)
    if wait_s and not page.views:
        page = await _page_in_time(query, wait_s, wake_of(agent.metadata), house, request.receive)
    views = spelled(await hand_out(page, house.parts.service, caller), request.scope["headers"])
    return Answer(page_body("messages", views, write_number(page.next_after, scope)))


@endpoints.get("/v1/agents/{ref}/sent", responses={200: {"model": InboxPage}})
async def sent(
    ref: str,
    request: Request,
    caller: Caller,
    house: House,
    asked: Asked,
    state: str | None = None,
    limit: Limit = 50,
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
    page = await _page(await asked.applied(query, house.directory, caller), house.parts)
    views = spelled(page.views, request.scope["headers"])
    return Answer(page_body("messages", views, write_number(page.next_after, scope)))


async def _page_in_time(query: ListQuery, wait_s: float, wake: Wake, house: Rooms, receive: Receive) -> Page:
    """The first page that is not empty, or the empty one when the time is over."""
    assert query.agent_id is not None
    page = Page(views=(), next_after=None)
    async with house.holds.at_most(wait_s, receive):
        async with house.parts.watch.inbox(query.agent_id) as arrivals:
            page = await _page(query, house.parts)
            while not page.views:
                await anext(arrivals)
                page = await _page(query, house.parts)
            if wake.is_coalesced:
                clock, queries = house.parts.clock, house.parts.queries
                page = await gathered(query, page, wake, queries=queries, arrivals=arrivals, clock=clock)
    return page


async def _page(query: ListQuery, parts: Parts) -> Page:
    await parts.queries.settle()
    return await parts.queries.page(query)
