"""Executions: lists and histories, live claims, leases, outcomes. Who wins is the router's to say."""

from collections.abc import Hashable
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query

from contracts.errors import Conflict, Forbidden, Invalid
from contracts.events import Leased
from contracts.records import JsonObject, Lease, Principal
from contracts.words import Channel, OutcomeState, State
from gateway.claimable import claimable_at, claimable_view
from gateway.cursor import read_number, write_number
from gateway.execution_search import Filter, Found, Narrowing, search, states_asked, statuses_asked
from gateway.instants import parse_instant
from gateway.paging import Offset
from gateway.parts import Rooms
from gateway.peer_executions import execution_fields, task_of
from gateway.ports import Query as ListQuery
from gateway.routing import Answer, Caller, House, StrictRoute, words
from gateway.schemas_executions import (
    UNFENCED_LEASE_S,
    InContext,
    LeaseExtension,
    LeaseRequest,
    LiveClaim,
    NextLease,
    OutcomeReport,
    Release,
)
from gateway.schemas_peer import (
    ClaimablePage,
    ExecutionPage,
    ExecutionView,
    ExtendedView,
    InContextView,
    LeasedView,
    LiveClaimedView,
    ReportedView,
)
from gateway.schemas_views import MessageView
from router.attestation import Proof
from router.explain import event_views, instant
from router.reports import Report
from router.service import Standing

endpoints = APIRouter(route_class=StrictRoute, tags=["executions"])

Limit = Annotated[int, Query(ge=1, le=200)]
NEXT_CANDIDATES: Final = 50
_STATES: Final = {state.value: state for state in State}
_CHANNELS: Final = {channel.value: channel for channel in Channel}
_OFFERED: Final[JsonObject] = {"states": (State.OFFERED,), "channel": Channel.LIVE}
_QUEUED: Final[JsonObject] = {"states": (State.QUEUED,), "channel": Channel.BG}
NO_EXTENSION: Final = LeaseExtension()
NO_LEASE: Final = InContext()
Instant = Annotated[str | None, Query(description="RFC 3339, with an offset.")]
Worker = Annotated[str | None, Header(alias="X-Worker-Id", max_length=255)]


@endpoints.get("/v1/executions", responses={200: {"model": ExecutionPage}})
async def list_executions(
    caller: Caller,
    house: House,
    state: str | None = None,
    channel: str | None = None,
    agent: str | None = None,
    sender: str | None = None,
    status: str | None = None,
    status__in: str | None = None,
    outcome_state: OutcomeState | None = None,
    has_evidence: bool | None = None,
    since: Instant = None,
    until: Instant = None,
    task: str | None = None,
    worker_id: str | None = None,
    cue_id: str | None = None,
    triggered_by: str | None = None,
    limit: Limit = 50,
    offset: Offset = 0,
    cursor: str | None = None,
) -> Answer:
    """The executions at one's agents, or of what one's agent `sender` sent; newest first."""
    narrowing = Narrowing(
        statuses=statuses_asked(status, status__in),
        outcome_state=outcome_state.value if outcome_state else None,
        has_evidence=has_evidence,
        since=_instant(since, "since"),
        until=_instant(until, "until"),
        task=task,
        worker_id=worker_id,
        cue_id=cue_id,
        triggered_by=triggered_by,
    )
    asked = await _asked(caller, house, state=state, channel=channel, agent=agent, sender=sender, limit=limit)
    scope = f"executions:{asked.owner}:{asked.agent_id}:{asked.sender_agent_id}:{state}:{channel}:{narrowing}"
    states = states_asked(asked.states, narrowing.statuses)
    query = replace(asked, states=states or (), after=read_number(cursor, scope))
    found = Found(views=[], next_after=None)
    if states is not None:
        await house.parts.queries.settle()
        found = await search(house.parts.queries, query, narrowing.takes, skip=offset, is_past=narrowing.is_past)
    next_cursor = write_number(found.next_after, scope)
    return Answer(
        {
            "executions": [{**view, **execution_fields(view)} for view in found.views],
            "next_cursor": next_cursor,
            "total": await _total(query, house) if narrowing.is_empty else None,
            "limit": limit,
            "offset": offset,
            "has_more": next_cursor is not None,
        }
    )


@endpoints.get("/v1/executions/claimable", responses={200: {"model": ClaimablePage}})
async def claimable(
    caller: Caller, house: House, agent: str | None = None, task: str | None = None, limit: Limit = 50
) -> Answer:
    """What can be claimed now: the poll behind pushes that were lost, and the one of workers that know no agents."""
    asked = await _claimable_at(agent, caller, house, limit)
    offers, queued = replace(asked, **_OFFERED), replace(asked, **_QUEUED)
    is_open = claimable_at(house.parts.clock.now(), task=task)
    if agent is None and task is None:
        # A worker that names neither looks for tasks it knows: many messages without one must not hide them.
        views = await _found(queued, house, lambda view: task_of(view) is not None and is_open(view), "any task")
        views += await _found(queued, house, lambda view: task_of(view) is None and is_open(view), "no task")
    else:
        views = await _found(offers, house, is_open, ("task", task)) if agent else []
        views += await _found(queued, house, is_open, ("task", task))
    return Answer({"executions": [await claimable_view(view, caller, house.parts.service) for view in views[:limit]]})


@endpoints.post("/v1/executions/claim", responses={200: {"model": LeasedView}})
async def lease_next(wanted: NextLease, caller: Caller, house: House) -> Answer:
    """Lease what has waited longest; `claimed` is false when nothing waits."""
    asked = await _claimable_at(wanted.agent, caller, house, NEXT_CANDIDATES)
    is_open = claimable_at(house.parts.clock.now(), task=wanted.task)
    for view in await _found(replace(asked, **_QUEUED), house, is_open, ("task", wanted.task)):
        try:
            return Answer(_leased(await _lease(view["execution_id"], wanted, caller, house), wanted))
        except Conflict:
            continue  # another worker was faster
    if wanted.is_bare:
        raise Conflict("claim_failed", "Nothing waits for a worker.")
    return Answer({"claimed": False})


@endpoints.get("/v1/executions/{execution_id}", responses={200: {"model": ExecutionView}})
async def read_execution(execution_id: str, caller: Caller, house: House) -> Answer:
    """An execution with the full history of its message."""
    standing = await house.parts.service.find_execution(execution_id, caller)
    view = standing.explained
    fields = execution_fields(view, holder=_last_holder(standing))
    return Answer({**view, **fields, "events": event_views(standing.history)})


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
    return Answer(_claimed(standing.explained, standing))


@endpoints.post("/v1/executions/{execution_id}/claim", responses={200: {"model": LeasedView}})
async def lease(execution_id: str, wanted: LeaseRequest, caller: Caller, house: House) -> Answer:
    """A worker leases a background execution."""
    return Answer(_leased(await _lease(execution_id, wanted, caller, house), wanted))


@endpoints.post("/v1/executions/{execution_id}/heartbeat", responses={200: {"model": ExtendedView}})
async def extend(
    execution_id: str, caller: Caller, house: House, wanted: LeaseExtension = NO_EXTENSION, worker: Worker = None
) -> Answer:
    """Prolong a lease."""
    number = wanted.lease
    if number is None or worker is not None:
        held = await _held(execution_id, caller, house)
        if worker not in (None, held.holder):
            raise Forbidden("not_execution_owner", "Another worker holds this execution.")
        if number is None and worker is None and held.fenced:
            raise Conflict("stale_lease", "Name the lease, or in X-Worker-Id the worker that has it.")
        number = number or held.number
    standing = await house.parts.service.extend(execution_id, number=number, lease_s=wanted.seconds, principal=caller)
    prolonged = _lease_view(standing.view)
    return Answer(
        {
            "lease": prolonged,
            "execution_id": standing.view["execution_id"],
            "lease_extended_until": prolonged["expires_at"],
            "acknowledged": True,
        }
    )


@endpoints.post("/v1/executions/{execution_id}/in-context", responses={200: {"model": InContextView}})
async def in_context(execution_id: str, caller: Caller, house: House, said: InContext = NO_LEASE) -> Answer:
    """Who holds the execution has really taken the message: it is before the turn, or the program has read it."""
    standing = await house.parts.service.enter_context(execution_id, lease=said.lease, principal=caller)
    view = standing.explained
    return Answer({"execution_id": view["execution_id"], "in_context_at": view["in_context_at"], "message": view})


@endpoints.post("/v1/executions/{execution_id}/release", responses={200: {"model": MessageView}})
async def release(execution_id: str, wanted: Release, caller: Caller, house: House) -> Answer:
    """The attempt failed: queue the execution again, or end it as exhausted."""
    standing = await house.parts.service.release(
        execution_id, number=wanted.lease, reason_detail=wanted.reason, detail=wanted.detail, principal=caller
    )
    return Answer(standing.explained)


@endpoints.post("/v1/executions/{execution_id}/outcome", responses={200: {"model": ReportedView}})
async def report(execution_id: str, wanted: OutcomeReport, caller: Caller, house: House) -> Answer:
    """Report what came of an execution."""
    outcome = Report(
        success=wanted.success,
        result=wanted.result,
        error=wanted.error,
        metadata=wanted.metadata,
        executed_via=wanted.executed_via,
        lease=wanted.lease,
        evidence=wanted.evidence(),
    )
    view = (await house.parts.service.report(execution_id, outcome, caller)).explained
    return Answer({**view, "outcome_recorded": True, "outcome_state": view["outcome"]["state"]})


async def _asked(
    caller: Principal,
    house: Rooms,
    *,
    state: str | None,
    channel: str | None,
    agent: str | None,
    sender: str | None,
    limit: int,
) -> ListQuery:
    """The part of a list's filters that has indexes. Raises `NotFound` for an agent the caller does not have."""
    directory, action = house.directory, "execution.list"
    author = await directory.find(sender, caller, action=action, field="sender") if sender else None
    receiver = None
    if agent or author is None:
        receiver = await directory.narrowed(agent or None, caller, action=action, field="agent")
    owners = {each.owner for each in (receiver, author) if each}
    if len(owners) > 1:
        raise Invalid("field_not_applicable", "agent and sender have to be of one owner.", field="sender")
    return ListQuery(
        owner=owners.pop() if owners else caller.owner,
        agent_id=receiver.id if receiver else None,
        sender_agent_id=author.id if author else None,
        states=words(state, _STATES, "state"),
        channel=_channel(channel),
        limit=limit,
    )


async def _total(query: ListQuery, house: Rooms) -> int | None:
    """How many there are, where one index knows: looking through rows for a number nobody may read is not worth it."""
    has_two = query.sender_agent_id and (query.agent_id or query.states)
    if query.channel or has_two:
        return None
    return await house.parts.queries.count(query)


async def _claimable_at(agent: str | None, caller: Principal, house: Rooms, limit: int) -> ListQuery:
    """What waits at one agent, or at all of the caller's own; what waits longest first."""
    found = await house.directory.narrowed(agent or None, caller, action="execution.claim", field="agent")
    await house.parts.queries.settle()
    return ListQuery(
        owner=found.owner if found else caller.owner,
        agent_id=found.id if found else None,
        limit=limit,
        oldest_first=True,
    )


async def _found(query: ListQuery, house: Rooms, takes: Filter, what: Hashable) -> list[JsonObject]:
    return (await house.claimables.look(query, takes, what=what)).views


async def _lease(execution_id: str, wanted: LeaseRequest, caller: Principal, house: Rooms) -> Standing:
    return await house.parts.service.lease(
        execution_id,
        holder=wanted.worker_id,
        lease_s=wanted.lease_s or UNFENCED_LEASE_S,
        principal=caller,
        fenced=wanted.is_fenced,
    )


async def _held(execution_id: str, caller: Principal, house: Rooms) -> Lease:
    """The present lease of a bg execution. Raises `Conflict` (`execution_not_claiming`) without one."""
    execution = (await house.parts.service.find_execution(execution_id, caller, "execution.lease")).execution
    if execution.lease is None or execution.channel is not Channel.BG:
        raise Conflict("execution_not_claiming", "Nobody holds a lease of this execution.")
    return execution.lease


def _last_holder(standing: Standing) -> str | None:
    """The worker that had the execution last, also after its lease has ended."""
    events = (each.event for each in reversed(standing.history.events))
    number = standing.execution.number
    return next((each.lease.holder for each in events if isinstance(each, Leased) and each.execution == number), None)


def _claimed(view: JsonObject, standing: Standing) -> JsonObject:
    return {
        "claimed": True,
        "attested": True,
        "execution_id": view["execution_id"],
        "message_id": view["id"],
        "level": view["claim"]["level"],
        "claimed_at": view["claim"]["claimed_at"],
        "live_claimed_at": view["claim"]["claimed_at"],
        "outcome_before": instant(standing.execution.outcome_before),
        "message": view,
    }


def _leased(standing: Standing, wanted: LeaseRequest) -> JsonObject:
    view = standing.explained
    return {
        "claimed": True,
        "execution_id": view["execution_id"],
        "message_id": view["id"],
        "lease": _lease_view(view),
        "lease_seconds": wanted.lease_s or UNFENCED_LEASE_S,
        "attempt": view["attempts"],
        "max_attempts": view["max_attempts"],
        "message": view,
    }


def _lease_view(view: JsonObject) -> JsonObject:
    return {"number": view["lease"]["number"], "expires_at": view["lease"]["expires_at"]}


def _instant(text: str | None, field: str) -> datetime | None:
    at = parse_instant(text) if text is not None else None
    if text is not None and at is None:
        raise Invalid("invalid_instant", "Write an instant as RFC 3339, with an offset.", field=field)
    return at


def _channel(text: str | None) -> Channel | None:
    found = words(text, _CHANNELS, "channel")
    if len(found) > 1:
        raise Invalid("invalid_enum", "Ask for one channel.", field="channel")
    return found[0] if found else None
