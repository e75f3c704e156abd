"""Workers: whoever leases background work says here that it lives."""

from fastapi import APIRouter, Response

from contracts.errors import NotFound
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_account import AcknowledgedView, WorkerBeat, WorkerPage
from gateway.workers import worker_view
from router.explain import instant

endpoints = APIRouter(route_class=StrictRoute, tags=["workers"])


@endpoints.post("/v1/worker/heartbeat", responses={200: {"model": AcknowledgedView}})
async def beat_worker(beat: WorkerBeat, caller: Caller, house: House) -> Answer:
    """A worker's sign of life."""
    handlers = None if beat.handlers is None else tuple(beat.handlers)
    seen_at = await house.parts.workers.beat(caller.owner, beat.worker_id, handlers)
    return Answer({"acknowledged": True, "server_time": instant(seen_at)})


@endpoints.get("/v1/workers", responses={200: {"model": WorkerPage}})
async def list_workers(caller: Caller, house: House) -> Answer:
    """One's own workers by name: those heard of within a day."""
    workers = await house.parts.workers.of_owner(caller.owner)
    now = house.parts.clock.now()
    return Answer({"workers": [worker_view(each, now) for each in workers], "total": len(workers)})


@endpoints.delete("/v1/workers/{worker_id}", status_code=204)
async def forget_worker(worker_id: str, caller: Caller, house: House) -> Response:
    """Forget a worker. Its leases stay."""
    if not await house.parts.workers.forget(caller.owner, worker_id):
        raise NotFound("worker_not_found", "There is no such worker.")
    return Response(status_code=204)
