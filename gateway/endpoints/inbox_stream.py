"""An agent's inbox as a stream: messages as they arrive, singly or in batches, and none missed between two streams."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request, Response

from contracts.records import Agent, Principal
from gateway.endpoints.events import STREAM, After, ForS, source_of
from gateway.mailbox import Mailbox
from gateway.parts import Rooms
from gateway.routing import Caller, House, StrictRoute
from gateway.sse import LAST_STREAM_S, EventSource, frame, last_event_id, opening
from gateway.wake import wake_of

endpoints = APIRouter(route_class=StrictRoute, tags=["inbox"])


@endpoints.get("/v1/agents/{ref}/inbox/stream", response_class=Response, responses=STREAM)
async def stream_inbox(
    ref: str,
    request: Request,
    caller: Caller,
    house: House,
    after: After = 0,
    for_s: ForS = LAST_STREAM_S,
) -> EventSource:
    """What waits for an agent and what arrives, oldest first. Handing a message out marks it as delivered.

    With `Last-Event-ID` (or `after`) the stream goes on behind that message; without, it begins with all that is
    neither read nor acknowledged.
    """
    agent = await house.directory.find(ref, caller, action="inbox.read", field="ref")
    given = last_event_id(request.headers)
    start = after if given is None else given
    return source_of(lambda: _frames(agent, caller, start, house), request, caller, house, for_s)


async def _frames(agent: Agent, caller: Principal, after: int, house: Rooms) -> AsyncGenerator[bytes, None]:
    parts = house.parts
    mailbox = Mailbox(agent, caller, service=parts.service, queries=parts.queries, watch=parts.watch, clock=parts.clock)
    is_coalesced = wake_of(agent.metadata).is_coalesced
    yield opening(after)
    async with aclosing(mailbox.listen(after)) as portions:
        async for mail in portions:
            if not mail:
                yield b""
            elif is_coalesced:
                yield frame(mail[-1].seq, "batch", {"messages": [each.view for each in mail]})
            else:
                yield b"".join([frame(each.seq, "message", each.view) for each in mail])
