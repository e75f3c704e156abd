"""Guards: which refuse at present, and their reset."""

from datetime import datetime

from fastapi import APIRouter

from gateway.ports import OpenGuard
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_guards import GuardPage, GuardReset, ResetView
from router.explain import View, instant
from router.guards import EXHAUSTED

endpoints = APIRouter(route_class=StrictRoute, tags=["guards"])


@endpoints.get("/v1/guards", responses={200: {"model": GuardPage}})
async def list_guards(caller: Caller, house: House, owner: str | None = None) -> Answer:
    """The open guards of an owner's agents and threads: the caller's, or with an admin key anybody's."""
    now = house.parts.clock.now()
    return Answer({"guards": [_view(guard, now) for guard in await house.guards.open_of(caller, owner)]})


@endpoints.post("/v1/guards/reset", responses={200: {"model": ResetView}})
async def reset_guards(wanted: GuardReset, caller: Caller, house: House) -> Answer:
    """Close open guards and fill their budgets."""
    return Answer({"reset": await house.guards.reset(wanted, caller)})


def _view(guard: OpenGuard, now: datetime) -> View:
    return {
        "gate": guard.gate.value,
        "reason": EXHAUSTED[guard.gate].value,
        "state": "open" if now < guard.retry_at else "half_open",
        "sender": guard.sender,
        "recipient": guard.recipient,
        "thread": guard.thread,
        "retry_at": instant(guard.retry_at),
    }
