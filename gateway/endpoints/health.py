"""Health: the process lives, its neighbours answer, and the numbers. Open to everybody who reaches the port."""

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from contracts.errors import Unavailable
from gateway.metrics import CONTENT_TYPE
from gateway.parts import Rooms
from gateway.routing import Answer, House
from gateway.schemas_views import HealthView, ReadyView

endpoints = APIRouter(tags=["health"])
PROBE_TIMEOUT_S: Final = 1.0


@endpoints.get("/healthz", responses={200: {"model": HealthView}})
async def healthz() -> Answer:
    """The process lives."""
    return Answer({"status": "ok"})


@endpoints.get("/readyz", responses={200: {"model": ReadyView}, 503: {"model": ReadyView}})
async def readyz(house: House) -> Answer:
    """Broker and freshness store answer: a round trip through each, a second at most."""
    parts = await states_of_parts(house)
    is_ready = all(state == "ok" for state in parts.values())
    body = {"status": "ready" if is_ready else "unavailable", "parts": parts}
    return Answer(body, 200 if is_ready else 503, {} if is_ready else {"Retry-After": "1"})


@endpoints.get("/metrics", response_class=PlainTextResponse)
async def metrics(house: House) -> Response:
    """The numbers, in Prometheus' text format."""
    return Response(house.parts.metrics.text(), media_type=CONTENT_TYPE)


async def states_of_parts(house: Rooms) -> dict[str, str]:
    """What broker and freshness store answer, by name: `ok`, or why not."""
    probe, parts = house.parts.probe, {}

    async def check(name: str, ask: Callable[[], Awaitable[None]]) -> None:
        parts[name] = await _state_of(ask)

    async with anyio.create_task_group() as checks:
        checks.start_soon(check, "broker", probe.broker)
        checks.start_soon(check, "store", probe.store)
    return dict(sorted(parts.items()))


async def _state_of(ask: Callable[[], Awaitable[None]]) -> str:
    with anyio.move_on_after(PROBE_TIMEOUT_S):
        try:
            await ask()
        except Unavailable as error:
            return error.code
        return "ok"
    return "timeout"
