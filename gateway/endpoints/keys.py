"""API keys, and who one is."""

from fastapi import APIRouter, Response

from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_agents import NewKey
from gateway.schemas_views import KeyPage, KeyWithText, PrincipalView
from gateway.views import key_view, principal_view

endpoints = APIRouter(route_class=StrictRoute, tags=["keys"])


@endpoints.post("/v1/keys", status_code=201, responses={201: {"model": KeyWithText}})
async def mint_key(wanted: NewKey, caller: Caller, house: House) -> Answer:
    """Mint a key. Its text is shown this once."""
    record, text = await house.keys.mint(wanted, caller)
    return Answer({**key_view(record), "key": text}, 201)


@endpoints.get("/v1/keys", responses={200: {"model": KeyPage}})
async def list_keys(caller: Caller, house: House) -> Answer:
    """The keys that count now."""
    return Answer({"keys": [key_view(key) for key in await house.keys.visible(caller)]})


@endpoints.delete("/v1/keys/{key_id}", status_code=204)
async def revoke_key(key_id: str, caller: Caller, house: House) -> Response:
    """Revoke a key; within five seconds nobody takes it any more."""
    await house.keys.revoke(key_id, caller)
    return Response(status_code=204)


@endpoints.get("/v1/auth/me", responses={200: {"model": PrincipalView}})
async def who_am_i(caller: Caller) -> Answer:
    """The owner this key speaks for."""
    return Answer(principal_view(caller))
