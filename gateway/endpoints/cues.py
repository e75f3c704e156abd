"""Cues: make, list, read, change, pause, resume, fire, delete."""

from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request

from contracts.cues import CueStatus, Transport
from contracts.errors import Malformed, NotFound, Unavailable
from contracts.records import Agent
from gateway.cue_views import cue_view
from gateway.cues import NewlyMade
from gateway.intake import read_headers
from gateway.parts import Rooms
from gateway.peer_executions import execution_fields
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_cues import (
    BulkDeletion,
    CueChange,
    CuePage,
    CueView,
    CueWithSecrets,
    DeletedCuesView,
    FiredView,
    FireWish,
    NewCue,
)

endpoints = APIRouter(route_class=StrictRoute, tags=["cues"])

NOW: Final = FireWish()
PAUSE: Final = CueChange(status="paused")
RESUME: Final = CueChange(status="active")
NO_WORKER: Final = "No worker has been heard of; fires wait until one takes them."
Confirmed = Annotated[str | None, Header(alias="X-Confirm-Destructive", description="`true`, or nothing is done.")]


@endpoints.post("/v1/cues", status_code=201, responses={201: {"model": CueWithSecrets}})
async def create_cue(wanted: NewCue, caller: Caller, house: House) -> Answer:
    """Make a cue: a message on a schedule, or on demand."""
    made = await house.cues.create(wanted, caller)
    warning = await _warning(made, house)
    return Answer({**cue_view(made.cue, warning=warning), **_secrets(made)}, 201)


@endpoints.get("/v1/cues", responses={200: {"model": CuePage}})
async def list_cues(
    caller: Caller,
    house: House,
    status: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    offset: Annotated[int, Query(ge=0, le=1_000)] = 0,
) -> Answer:
    """One's own cues, newest first."""
    if status not in (None, *CueStatus):
        raise Malformed("invalid_status", f"The status is one of: {', '.join(CueStatus)}.", field="status")
    found = await house.cues.of_owner(caller.owner, CueStatus(status) if status else None)
    page = found[offset : offset + limit]
    return Answer(
        {
            "cues": [cue_view(each) for each in page],
            "total": len(found),
            "limit": limit,
            "offset": offset,
            "has_more": offset + limit < len(found),
        }
    )


@endpoints.post("/v1/cues/bulk-delete", responses={200: {"model": DeletedCuesView}})
async def delete_cues(wanted: BulkDeletion, caller: Caller, house: House, confirmed: Confirmed = None) -> Answer:
    """Delete many; those that are not there are skipped."""
    if confirmed is None or confirmed.strip().lower() != "true":
        raise Malformed("confirmation_required", "Send X-Confirm-Destructive: true.", field="X-Confirm-Destructive")
    deleted: list[str] = []
    skipped: list[str] = []
    for cue_id in dict.fromkeys(wanted.ids):
        try:
            await house.cues.delete(cue_id, caller)
            deleted.append(cue_id)
        except NotFound:
            skipped.append(cue_id)
    return Answer({"deleted": deleted, "skipped": skipped})


@endpoints.get("/v1/cues/{cue_id}", responses={200: {"model": CueView}})
async def read_cue(cue_id: str, caller: Caller, house: House) -> Answer:
    """One cue, with its last fires."""
    return Answer(cue_view((await house.cues.find(cue_id, caller, "cue.read")).record))


@endpoints.patch("/v1/cues/{cue_id}", responses={200: {"model": CueWithSecrets}})
async def change_cue(cue_id: str, wanted: CueChange, caller: Caller, house: House) -> Answer:
    """Change what is named; the rest stays."""
    made = await house.cues.change(cue_id, wanted, caller)
    return Answer({**cue_view(made.cue), **_secrets(made)})


@endpoints.delete("/v1/cues/{cue_id}", status_code=204)
async def delete_cue(cue_id: str, caller: Caller, house: House) -> Answer:
    """Delete a cue. What it has sent goes on, but for what still waits for its own URL: that ends."""
    await house.cues.delete(cue_id, caller)
    return Answer(b"", 204)


@endpoints.post("/v1/cues/{cue_id}/pause", responses={200: {"model": CueView}})
async def pause_cue(cue_id: str, caller: Caller, house: House) -> Answer:
    """Fire nothing more until it is resumed; what passes meanwhile is not missed."""
    return Answer(cue_view((await house.cues.change(cue_id, PAUSE, caller)).cue))


@endpoints.post("/v1/cues/{cue_id}/resume", responses={200: {"model": CueView}})
async def resume_cue(cue_id: str, caller: Caller, house: House) -> Answer:
    """Go on with the next instant of the schedule."""
    return Answer(cue_view((await house.cues.change(cue_id, RESUME, caller)).cue))


@endpoints.post("/v1/cues/{cue_id}/fire", responses={200: {"model": FiredView}})
async def fire_cue(cue_id: str, request: Request, caller: Caller, house: House, wanted: FireWish = NOW) -> Answer:
    """Fire on demand: once for each Idempotency-Key."""
    key = read_headers(request.scope["headers"]).idempotency_key
    standing = await house.cues.fire(cue_id, wanted, key, caller)
    view = standing.explained
    fields = execution_fields(view)
    return Answer(
        {
            "id": view["execution_id"],
            "execution_id": view["execution_id"],
            **{name: fields[name] for name in ("message_id", "cue_id", "scheduled_for", "status", "triggered_by")},
            "replayed": standing.replayed,
            "message": view,
        }
    )


def _secrets(made: NewlyMade) -> dict[str, str]:
    names = {made.cue.agent_id: "webhook_secret", made.cue.on_failure.hook_agent_id: "on_failure_webhook_secret"}
    found: list[Agent] = [each for each in made.agents if each.webhook_secret]
    return {names[each.id]: each.webhook_secret or "" for each in found if each.id in names}


async def _warning(made: NewlyMade, house: Rooms) -> str | None:
    if made.cue.transport is not Transport.WORKER:
        return None
    try:
        return None if await house.parts.workers.of_owner(made.cue.owner) else NO_WORKER
    except Unavailable:
        return None
