"""Threads: the messages that answer each other, as far as the caller may see them."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from contracts.errors import NotFound
from contracts.ids import MESSAGE_ID
from contracts.records import Principal
from gateway.auth import reaches
from gateway.cursor import read_number, write_number
from gateway.lists import page_body, spelled
from gateway.parts import Rooms
from gateway.ports import ANYBODY
from gateway.ports import Query as ListQuery
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_conversation import ThreadPage

endpoints = APIRouter(route_class=StrictRoute, tags=["messages"])


@endpoints.get("/v1/threads/{thread_id}", responses={200: {"model": ThreadPage}})
async def read_thread(
    thread_id: str,
    request: Request,
    caller: Caller,
    house: House,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> Answer:
    """A thread's messages that one sent or received, oldest first."""
    if not MESSAGE_ID.match(thread_id):
        raise _no_thread()
    scope = f"thread:{caller.owner}:{caller.admin}:{thread_id}"
    query = ListQuery(
        owner=_whose(caller),
        thread=thread_id,
        either_side=True,
        after=read_number(cursor, scope),
        limit=limit,
        oldest_first=True,
    )
    await house.parts.queries.settle()
    page = await house.parts.queries.page(query)
    if not page.views and page.next_after is None and cursor is None:
        await _refuse_absent(thread_id, caller, house)
    views = spelled(page.views, request.scope["headers"])
    start = b'{"thread_id":"%s",' % thread_id.encode()
    return Answer(start + page_body("messages", views, write_number(page.next_after, scope))[1:])


def _whose(caller: Principal) -> str:
    return ANYBODY if reaches(caller, ANYBODY) else caller.owner


async def _refuse_absent(thread_id: str, caller: Principal, house: Rooms) -> None:
    """Another program may have accepted the first message an instant ago; then the thread is there, and still empty."""
    try:
        await house.parts.service.find_message(thread_id, caller)
    except NotFound:
        raise _no_thread() from None


def _no_thread() -> NotFound:
    return NotFound("thread_not_found", "There is no such thread.")
