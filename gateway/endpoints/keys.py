"""API keys: minted, listed, rotated, revoked."""

from collections.abc import Sequence
from datetime import datetime

import structlog
from fastapi import APIRouter, Response

from contracts.errors import Unavailable
from contracts.records import ApiKey
from contracts.tenant_events import EventType
from gateway.parts import Rooms
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_keys import KeyPage, KeyRotation, KeyWithText, NewKey, RotatedKeyView
from gateway.views import key_view
from router.explain import instant

endpoints = APIRouter(route_class=StrictRoute, tags=["keys"])
log = structlog.get_logger()
BY_TOMORROW = KeyRotation()


@endpoints.post("/v1/keys", status_code=201, responses={201: {"model": KeyWithText}})
async def mint_key(wanted: NewKey, caller: Caller, house: House) -> Answer:
    """Mint a key. Its text is shown this once."""
    record, text = await house.keys.mint(wanted, caller)
    await house.notices.key(EventType.KEY_CREATED, record)
    return Answer({**key_view(record), "key": text}, 201)


@endpoints.get("/v1/keys", responses={200: {"model": KeyPage}})
async def list_keys(caller: Caller, house: House) -> Answer:
    """The keys that count now."""
    keys = await house.keys.visible(caller)
    uses = await last_used(keys, house)
    return Answer({"keys": [key_view(key, used_at) for key, used_at in zip(keys, uses, strict=True)]})


@endpoints.post("/v1/keys/{key_id}/rotate", status_code=201, responses={201: {"model": RotatedKeyView}})
async def rotate_key(key_id: str, caller: Caller, house: House, wanted: KeyRotation = BY_TOMORROW) -> Answer:
    """A successor with the same limits, shown this once; the key before it counts beside it for a stated time."""
    before, record, text = await house.keys.rotate(key_id, wanted.overlap_s, caller)
    await house.notices.key(EventType.KEY_CREATED, record)
    previous = {"previous_key_id": before.key_id, "previous_expires_at": instant(before.expires_at)}
    return Answer({**key_view(record), "key": text, **previous}, 201)


@endpoints.delete("/v1/keys/{key_id}", status_code=204)
async def revoke_key(key_id: str, caller: Caller, house: House) -> Response:
    """Revoke a key; within five seconds nobody takes it any more."""
    revoked = await house.keys.revoke(key_id, caller)
    await house.notices.key(EventType.KEY_REVOKED, revoked)
    return Response(status_code=204)


async def last_used(keys: Sequence[ApiKey], house: Rooms) -> Sequence[datetime | None]:
    """Nothing known of any while the freshness store is away: who has keys does not depend on it."""
    try:
        return await house.parts.key_uses.last_used([key.key_id for key in keys])
    except Unavailable as error:
        log.warning("key_uses_unknown", code=error.code)
        return [None] * len(keys)
