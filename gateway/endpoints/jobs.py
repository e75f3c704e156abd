"""Jobs below a project: claimed, kept by beats, completed or failed, and told of, as Mobius' workers do."""

from typing import Any

import structlog
from fastapi import APIRouter, Request, Response

from contracts.errors import Unavailable
from contracts.records import Agent, Principal
from contracts.words import SessionStatus
from gateway.job_desk import Fence, JobWish
from gateway.jobs import CONCURRENCY, failure_of, job_view, project_worker_view, result_of
from gateway.live_sessions import session_ended
from gateway.parts import Rooms
from gateway.projects import agent_in, owner_of
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_jobs import (
    JobClaimRequest,
    JobCompletion,
    JobEvents,
    JobFence,
    JobHeartbeatView,
    JobView,
    ProjectWorkerPage,
)
from router.selectors import selector_of
from router.sessions import status_of

endpoints = APIRouter(route_class=StrictRoute, tags=["jobs"])
_JOBS = "/v1/projects/{project}/jobs"
log = structlog.get_logger()
_NONE: dict[int | str, dict[str, Any]] = {204: {"description": "None came up."}}


@endpoints.post(_JOBS + "/claim", responses={200: {"model": JobView}, **_NONE})
async def claim_job(project: str, wanted: JobClaimRequest, request: Request, caller: Caller, house: House) -> Response:
    """Claim one job; 204 when none came up within the wait."""
    owner = owner_of(project, caller)
    agent = await _agent(owner, wanted, caller, house)
    await _beat(owner, wanted.worker_id, tuple(wanted.actions or ()), house)
    wish = JobWish(
        owner=owner,
        worker_id=wanted.worker_id,
        agent=agent,
        selector=selector_of(wanted.where) if wanted.where else None,
        queues=wanted.queues or (),
        actions=wanted.actions or (),
        wait_s=wanted.wait_s,
        concurrency=wanted.concurrency_limit or CONCURRENCY,
    )
    check = house.authenticator.check_of(request.scope["headers"])
    claimed = await house.jobs.claim(wish, caller, request.receive, check)
    if claimed is None:
        return Response(status_code=204)
    return Answer(job_view(claimed.view, wanted.agent_session_id))


@endpoints.post(_JOBS + "/{job_id}/heartbeat", responses={200: {"model": JobHeartbeatView}})
async def beat_job(project: str, job_id: str, fence: JobFence, caller: Caller, house: House) -> Answer:
    """A worker is still at it; 409 when the job is no longer its own."""
    owner = owner_of(project, caller)
    standing = await house.jobs.beat(owner, Fence(job_id, fence.worker_id, fence.attempt), caller)
    await _beat(owner, fence.worker_id, None, house)
    is_late = house.parts.clock.now() > standing.execution.expires_at
    return Answer(
        {
            "ok": True,
            "directives": {"should_cancel": is_late},
            "lease_expires_at": standing.view["lease"]["expires_at"],
        }
    )


@endpoints.post(_JOBS + "/{job_id}/complete", status_code=204)
async def complete_job(project: str, job_id: str, done: JobCompletion, caller: Caller, house: House) -> Response:
    """The job is done, or this attempt at it has failed. Saying so again is the same."""
    owner = owner_of(project, caller)
    fence = Fence(job_id, done.worker_id, done.attempt)
    if done.status == "completed":
        await house.jobs.complete(owner, fence, result_of(done.result_b64), caller)
    else:
        await house.jobs.fail(owner, fence, failure_of(done.error_type, done.error_message), caller)
    return Response(status_code=204)


@endpoints.post(_JOBS + "/{job_id}/events", status_code=204)
async def tell_of_job(project: str, job_id: str, told: JobEvents, caller: Caller, house: House) -> Response:
    """What a worker tells of its job, as one event of the owner's log."""
    told.refuse_too_large()
    fence = Fence(job_id, told.worker_id, told.attempt)
    standing = await house.jobs.held(owner_of(project, caller), fence, caller)
    await house.notices.job(standing, [event.model_dump() for event in told.events])
    return Response(status_code=204)


@endpoints.get("/v1/projects/{project}/workers", responses={200: {"model": ProjectWorkerPage}})
async def list_project_workers(project: str, caller: Caller, house: House) -> Answer:
    """The workers heard of within a day, by name."""
    workers = await house.parts.workers.of_owner(owner_of(project, caller))
    now = house.parts.clock.now()
    return Answer({"items": [project_worker_view(each, now) for each in workers]})


async def _agent(owner: str, wanted: JobClaimRequest, caller: Principal, house: Rooms) -> Agent | None:
    """The agent a worker names, by itself or by its session. Raises `Conflict` (`session_ended`) for an ended one."""
    agent = None
    if wanted.agent_id is not None:
        agent = await agent_in(house.directory, owner, wanted.agent_id, caller, action="job.claim")
    if wanted.agent_session_id is None:
        return agent
    found = await house.session_door.find(owner, wanted.agent_session_id, caller, action="job.claim", agent=agent)
    status = status_of(found.session, await house.session_door.signs([found.session]))
    if status is not SessionStatus.CONNECTED:
        raise session_ended(status)
    return found.agent


async def _beat(owner: str, worker_id: str, handlers: tuple[str, ...] | None, house: Rooms) -> None:
    """A claim and a job's beat say that the worker lives; while the store is away nobody hears it."""
    try:
        await house.parts.workers.beat(owner, worker_id, handlers)
    except Unavailable as error:
        log.warning("worker_beat_lost", code=error.code)
