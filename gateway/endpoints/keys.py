"""API keys: minted, listed, revoked."""

from fastapi import APIRouter, Response

from contracts.tenant_events import EventType
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_agents import NewKey
from gateway.schemas_views import KeyPage, KeyWithText
from gateway.views import key_view

endpoints = APIRouter(route_class=StrictRoute, tags=["keys"])


@endpoints.post("/v1/keys", status_code=201, responses={201: {"model": KeyWithText}})
async def mint_key(wanted: NewKey, caller: Caller, house: House) -> Answer:
    """Mint a key. Its text is shown this once."""
    record, text = await house.keys.mint(wanted, caller)
    await house.notices.key(EventType.KEY_CREATED, record)
    return Answer({**key_view(record), "key": text}, 201)


@endpoints.get("/v1/keys", responses={200: {"model": KeyPage}})
async def list_keys(caller: Caller, house: House) -> Answer:
    """The keys that count now."""
    return Answer({"keys": [key_view(key) for key in await house.keys.visible(caller)]})


@endpoints.delete("/v1/keys/{key_id}", status_code=204)
async def revoke_key(key_id: str, caller: Caller, house: House) -> Response:
    """Revoke a key; within five seconds nobody takes it any more."""
    revoked = await house.keys.revoke(key_id, caller)
    await house.notices.key(EventType.KEY_REVOKED, revoked)
    return Response(status_code=204)
