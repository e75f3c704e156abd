"""Grants: which other owners may send to one's externally addressable agents."""

from fastapi import APIRouter, Response

from contracts.directory import Grant
from contracts.records import JsonObject
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_conversation import GrantPage, GrantView, NewGrant
from router.explain import instant

endpoints = APIRouter(route_class=StrictRoute, tags=["grants"])


@endpoints.post("/v1/grants", status_code=201, responses={200: {"model": GrantView}, 201: {"model": GrantView}})
async def give_grant(wanted: NewGrant, caller: Caller, house: House) -> Answer:
    """Let another owner send to one's externally addressable agents. Giving it again is answered with 200."""
    grant, is_new = await house.grants.give(wanted.owner, caller)
    return Answer(_view(grant), 201 if is_new else 200)


@endpoints.get("/v1/grants", responses={200: {"model": GrantPage}})
async def list_grants(caller: Caller, house: House) -> Answer:
    """The grants one has given."""
    return Answer({"grants": [_view(each) for each in await house.grants.given(caller)]})


@endpoints.delete("/v1/grants/{owner}", status_code=204)
async def withdraw_grant(owner: str, caller: Caller, house: House) -> Response:
    """Take a grant back; within two seconds it counts nowhere any more."""
    await house.grants.withdraw(owner, caller)
    return Response(status_code=204)


def _view(grant: Grant) -> JsonObject:
    return {"owner": grant.to, "created_at": instant(grant.created_at)}
