"""API keys in the shape Mobius' clients know: minted, listed, read, revoked. The same keys as `/v1/keys`."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from contracts.records import ApiKey
from contracts.tenant_events import EventType
from gateway.cursor import read_cursor, write_cursor
from gateway.endpoints.keys import last_used
from gateway.project_views import api_key_view
from gateway.projects import owner_of
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_api_keys import ApiKeyPage, ApiKeyView, ApiKeyWithText, NewApiKey
from router.explain import instant

endpoints = APIRouter(route_class=StrictRoute, tags=["keys"])


@endpoints.post("/v1/api-keys", status_code=201, responses={201: {"model": ApiKeyWithText}})
async def mint_api_key(wanted: NewApiKey, caller: Caller, house: House) -> Answer:
    """Mint a key. Its text is shown this once."""
    owner = owner_of(wanted.project_id, caller) if wanted.project_id is not None else caller.owner
    record, text = await house.keys.mint(wanted.key_for(owner), caller)
    await house.notices.key(EventType.KEY_CREATED, record)
    return Answer({**api_key_view(record, None), "key": text}, 201)


@endpoints.get("/v1/api-keys", responses={200: {"model": ApiKeyPage}})
async def list_api_keys(
    caller: Caller,
    house: House,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> Answer:
    """The keys that count now, the oldest first."""
    scope = f"api-keys:{caller.owner}:{caller.admin}"
    after = read_cursor(cursor, scope) if cursor is not None else ""
    rest = [key for key in await house.keys.visible(caller) if _place(key) > after]
    keys = sorted(rest, key=_place)[:limit]
    uses = await last_used(keys, house)
    has_more = len(rest) > limit
    return Answer(
        {
            "items": [api_key_view(key, used_at) for key, used_at in zip(keys, uses, strict=True)],
            "next_cursor": write_cursor(_place(keys[-1]), scope) if has_more else None,
            "has_more": has_more,
        }
    )


@endpoints.get("/v1/api-keys/{key_id}", responses={200: {"model": ApiKeyView}})
async def read_api_key(key_id: str, caller: Caller, house: House) -> Answer:
    """One key that counts."""
    key = await house.keys.find(key_id, caller)
    [used_at] = await last_used([key], house)
    return Answer(api_key_view(key, used_at))


@endpoints.delete("/v1/api-keys/{key_id}", status_code=204)
async def revoke_api_key(key_id: str, caller: Caller, house: House) -> Response:
    """Revoke a key; within five seconds nobody takes it any more."""
    revoked = await house.keys.revoke(key_id, caller)
    await house.notices.key(EventType.KEY_REVOKED, revoked)
    return Response(status_code=204)


def _place(key: ApiKey) -> str:
    """Where a key stands in the list: texts of instants sort like them."""
    return f"{instant(key.created_at)} {key.key_id}"
