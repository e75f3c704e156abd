"""Who is there: the roster of one's agents, and the presence of one of them."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Response

from contracts.records import JsonObject
from gateway.etags import is_known
from gateway.presence_view import presence_names, presence_view
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_views import PresenceView, RosterView

# Before the routes of agents: `roster` is a word of this path and no agent's name there.
endpoints = APIRouter(route_class=StrictRoute, tags=["presence"])

KEPT: Final = "private, max-age=300"
ASKED_EACH_TIME: Final = "private, no-cache"
_ETAG: Final = {"ETag": {"description": "Weak; changes with what is told.", "schema": {"type": "string"}}}

IfNoneMatch = Annotated[str | None, Header()]


def _responses(model: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model, "headers": _ETAG}, 304: {"description": "You have it.", "headers": _ETAG}}


@endpoints.get("/v1/agents/roster", responses=_responses(RosterView))
async def read_roster(caller: Caller, house: House, if_none_match: IfNoneMatch = None) -> Response:
    """One's agents and whether they are there, for prompts: the same text until something worth telling changes."""
    own = await house.directory.confines(caller, "agent.list")
    return _unless_known(await house.rosters.of_owner(caller.owner, own), if_none_match, KEPT)


@endpoints.get("/v1/agents/{ref}/presence", responses=_responses(PresenceView))
async def read_presence(ref: str, caller: Caller, house: House, if_none_match: IfNoneMatch = None) -> Response:
    """Whether an agent is there, and how it can be reached just now."""
    agent = await house.directory.find(ref, caller, action="agent.read", field="ref")
    sessions = await house.directory.attached(agent.id)
    names = presence_names(agent, sessions)
    signs = await house.parts.beats.signs(names)
    bound_s = house.parts.echo_settings.bound_s
    view = presence_view(agent, sessions, signs, house.parts.clock.now(), echo_bound_s=bound_s)
    return _unless_known(view, if_none_match, ASKED_EACH_TIME)


def _unless_known(view: JsonObject, if_none_match: str | None, cache_control: str) -> Response:
    headers = {"ETag": view["etag"], "Cache-Control": cache_control}
    if is_known(if_none_match, view["etag"]):
        return Response(status_code=304, headers=headers)
    return Answer(view, 200, headers)
