"""Executions: lists and histories, live claims, leases, outcomes. Who wins is the router's to say."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic_core import from_json

from contracts.errors import Conflict, Invalid
from contracts.records import JsonObject, Principal
from contracts.words import Channel, State
from gateway.cursor import read_number, write_number
from gateway.lists import page_body
from gateway.parts import Rooms
from gateway.ports import Query as ListQuery
from gateway.routing import Answer, Caller, House, StrictRoute, words
from gateway.schemas_executions import LeaseExtension, LeaseRequest, LiveClaim, NextLease, OutcomeReport, Release
from gateway.schemas_views import (
    ClaimablePage,
    ExecutionPage,
    ExecutionView,
    ExtendedView,
    LeasedView,
    LiveClaimedView,
    MessageView,
)
from router.attestation import Proof
from router.explain import event_views, instant
from router.reports import Report
from router.service import Standing

endpoints = APIRouter(route_class=StrictRoute, tags=["executions"])

Limit = Annotated[int, Query(ge=1, le=200)]
NEXT_CANDIDATES: Final = 50
_STATES: Final = {state.value: state for state in State}
_CHANNELS: Final = {channel.value: channel for channel in Channel}


@endpoints.get("/v1/executions", responses={200: {"model": ExecutionPage}})
async def list_executions(
    caller: Caller,
    house: House,
    state: str | None = None,
    channel: str | None = None,
    agent: str | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> Answer:
    """The executions at one's agents, newest first."""
    receiver = await house.directory.find(agent, caller, action="execution.list", field="agent") if agent else None
    owner = receiver.owner if receiver else caller.owner
    agent_id = receiver.id if receiver else None
    scope = f"executions:{owner}:{agent_id}:{state}:{channel}"
    page = await _page(
        ListQuery(
            owner=owner,
            agent_id=agent_id,
            states=words(state, _STATES, "state"),
            channel=_channel(channel),
            after=read_number(cursor, scope),
            limit=limit,
        ),
        house,
    )
    return Answer(page_body("executions", page.views, write_number(page.next_after, scope)))


@endpoints.get("/v1/executions/claimable", responses={200: {"model": ClaimablePage}})
async def claimable(agent: str, caller: Caller, house: House, limit: Limit = 50) -> Answer:
    """What could be claimed now: the poll behind pushes that were lost."""
    receiver = await house.directory.find(agent, caller, action="execution.claim", field="agent")
    entries: list[JsonObject] = []
    for state, channel in ((State.OFFERED, Channel.LIVE), (State.QUEUED, Channel.BG)):
        query = ListQuery(
            owner=receiver.owner,
            agent_id=receiver.id,
            states=(state,),
            channel=channel,
            limit=limit,
            oldest_first=True,
        )
        views = (from_json(view) for view in (await _page(query, house)).views)
        entries += [await _claimable(view, channel, caller, house) for view in views if _is_open(view, channel, house)]
    return Answer({"executions": entries[:limit]})


@endpoints.post("/v1/executions/claim", responses={200: {"model": LeasedView}})
async def lease_next(wanted: NextLease, caller: Caller, house: House) -> Answer:
    """Lease what has waited longest for an agent; `claimed` is false when nothing waits."""
    agent = await house.directory.find(wanted.agent, caller, action="execution.lease", field="agent")
    query = ListQuery(
        owner=agent.owner,
        agent_id=agent.id,
        states=(State.QUEUED,),
        channel=Channel.BG,
        limit=NEXT_CANDIDATES,
        oldest_first=True,
    )
    for view in (await _page(query, house)).views:
        try:
            return Answer(_leased(await _lease(from_json(view)["execution_id"], wanted, caller, house)))
        except Conflict:
            continue  # another host was faster, or the next attempt is not due
    return Answer({"claimed": False})


@endpoints.get("/v1/executions/{execution_id}", responses={200: {"model": ExecutionView}})
async def read_execution(execution_id: str, caller: Caller, house: House) -> Answer:
    """An execution with the full history of its message."""
    standing = await house.parts.service.find_execution(execution_id, caller)
    return Answer({**_view(standing), "events": event_views(standing.history)})


@endpoints.post("/v1/executions/{execution_id}/live-claim", responses={200: {"model": LiveClaimedView}})
async def live_claim(execution_id: str, claim: LiveClaim, caller: Caller, house: House) -> Answer:
    """A live session claims what was offered to it."""
    if claim.exec_id not in (None, execution_id):
        raise Invalid("execution_mismatch", "exec_id is not the execution of the path.", field="exec_id")
    proof = Proof(session_token=claim.session_token, nonce=claim.nonce)
    standing = await house.parts.service.live_claim(execution_id, proof, caller)
    held = standing.execution.claim
    if held is not None:
        waited = held.claimed_at - standing.history.message.accepted_at
        house.parts.metrics.claim_seconds(waited.total_seconds())
    return Answer(_claimed(_view(standing), standing))


@endpoints.post("/v1/executions/{execution_id}/claim", responses={200: {"model": LeasedView}})
async def lease(execution_id: str, wanted: LeaseRequest, caller: Caller, house: House) -> Answer:
    """A host's daemon leases a background execution."""
    return Answer(_leased(await _lease(execution_id, wanted, caller, house)))


@endpoints.post("/v1/executions/{execution_id}/heartbeat", responses={200: {"model": ExtendedView}})
async def extend(execution_id: str, wanted: LeaseExtension, caller: Caller, house: House) -> Answer:
    """Prolong a lease."""
    standing = await house.parts.service.extend(
        execution_id, number=wanted.lease, lease_s=wanted.lease_s, principal=caller
    )
    return Answer({"lease": _lease_view(_view(standing))})


@endpoints.post("/v1/executions/{execution_id}/release", responses={200: {"model": MessageView}})
async def release(execution_id: str, wanted: Release, caller: Caller, house: House) -> Answer:
    """The attempt failed: queue the execution again, or end it as exhausted."""
    standing = await house.parts.service.release(
        execution_id, number=wanted.lease, reason_detail=wanted.reason, detail=wanted.detail, principal=caller
    )
    return Answer(_view(standing))


@endpoints.post("/v1/executions/{execution_id}/outcome", responses={200: {"model": MessageView}})
async def report(execution_id: str, wanted: OutcomeReport, caller: Caller, house: House) -> Answer:
    """Report what came of an execution."""
    outcome = Report(
        success=wanted.success,
        result=wanted.result,
        error=wanted.error,
        metadata=wanted.metadata,
        executed_via=wanted.executed_via,
        lease=wanted.lease,
    )
    standing = await house.parts.service.report(execution_id, outcome, caller)
    return Answer(_view(standing))


async def _page(query: ListQuery, house: Rooms) -> Any:
    await house.parts.queries.settle()
    return await house.parts.queries.page(query)


async def _lease(execution_id: str, wanted: LeaseRequest, caller: Principal, house: Rooms) -> Standing:
    return await house.parts.service.lease(
        execution_id, holder=wanted.worker_id, lease_s=wanted.lease_s, principal=caller
    )


def _view(standing: Standing) -> JsonObject:
    return standing.explained


def _claimed(view: JsonObject, standing: Standing) -> JsonObject:
    return {
        "claimed": True,
        "execution_id": view["execution_id"],
        "message_id": view["id"],
        "level": view["claim"]["level"],
        "claimed_at": view["claim"]["claimed_at"],
        "outcome_before": instant(standing.execution.outcome_before),
        "message": view,
    }


def _leased(standing: Standing) -> JsonObject:
    view = _view(standing)
    return {
        "claimed": True,
        "execution_id": view["execution_id"],
        "message_id": view["id"],
        "lease": _lease_view(view),
        "attempt": view["attempts"],
        "max_attempts": view["max_attempts"],
        "message": view,
    }


def _lease_view(view: JsonObject) -> JsonObject:
    return {"number": view["lease"]["number"], "expires_at": view["lease"]["expires_at"]}


def _is_open(view: JsonObject, channel: Channel, house: Rooms) -> bool:
    deadline_at = view["deadline_at"]
    # Both are written by `instant`, whose strings sort like the instants they name.
    return channel is Channel.BG or deadline_at is None or deadline_at > (instant(house.parts.clock.now()) or "")


async def _claimable(view: JsonObject, channel: Channel, caller: Principal, house: Rooms) -> JsonObject:
    return {
        "execution_id": view["execution_id"],
        "message_id": view["id"],
        "agent_id": view["to"]["agent_id"],
        "channel": channel.value,
        **await _offer(view["execution_id"], channel, caller, house),
    }


async def _offer(execution_id: str, channel: Channel, caller: Principal, house: Rooms) -> JsonObject:
    """The nonce is derived from the exact instant the window closes, which only the ledger knows."""
    before = None
    if channel is Channel.LIVE:
        before = (await house.parts.service.find_execution(execution_id, caller)).execution.claim_before
    nonce = house.parts.service.nonce(execution_id, before) if before else None
    return {"nonce": nonce, "claim_before": instant(before)}


def _channel(text: str | None) -> Channel | None:
    found = words(text, _CHANNELS, "channel")
    if len(found) > 1:
        raise Invalid("invalid_enum", "Ask for one channel.", field="channel")
    return found[0] if found else None
