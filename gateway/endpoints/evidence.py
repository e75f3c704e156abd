"""After an outcome: evidence, verification, and delivering a message once more."""

from typing import Final

from fastapi import APIRouter, Request

from contracts.records import JsonObject
from gateway.peer_executions import execution_fields
from gateway.peer_views import is_peers_client
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_executions import MoreEvidence, Verdict
from gateway.schemas_peer import EvidenceView, PendingView, ReplayView, VerifiedView
from router.service import Standing

endpoints = APIRouter(route_class=StrictRoute, tags=["executions"])

IT_HOLDS: Final = Verdict()


@endpoints.patch("/v1/executions/{execution_id}/evidence", responses={200: {"model": EvidenceView}})
async def add_evidence(execution_id: str, wanted: MoreEvidence, caller: Caller, house: House) -> Answer:
    """Add evidence to a recorded outcome, which is weighed again."""
    standing = await house.parts.service.add_evidence(execution_id, wanted.evidence(), caller)
    return Answer({**_worth(standing), "evidence_updated": True})


@endpoints.post("/v1/executions/{execution_id}/verify", responses={200: {"model": VerifiedView}})
async def verify(execution_id: str, caller: Caller, house: House, wanted: Verdict = IT_HOLDS) -> Answer:
    """Say that an outcome holds, or does not."""
    standing = await house.parts.service.verify(
        execution_id, valid=wanted.valid, reason=wanted.reason, principal=caller
    )
    return Answer({**_worth(standing), "valid": wanted.valid, "reason": wanted.reason})


@endpoints.post("/v1/executions/{execution_id}/verification-pending", responses={200: {"model": PendingView}})
async def ask_for_verification(execution_id: str, caller: Caller, house: House) -> Answer:
    """Mark an outcome as one that somebody has to verify."""
    return Answer(_worth(await house.parts.service.ask_for_verification(execution_id, caller)))


@endpoints.post("/v1/executions/{execution_id}/replay", status_code=201, responses={201: {"model": ReplayView}})
async def replay(execution_id: str, request: Request, caller: Caller, house: House) -> Answer:
    """Deliver an ended message once more, as a new execution."""
    found = await house.parts.service.find_execution(execution_id, caller, "execution.replay")
    await house.intake.readdressed(found.history.message, caller)
    view = (await house.parts.service.replay(execution_id, caller)).explained
    fields = execution_fields(view)
    answer = {
        "id": view["execution_id"],
        "execution_id": view["execution_id"],
        "replayed_from": execution_id,
        **{name: fields[name] for name in ("message_id", "cue_id", "scheduled_for", "status", "triggered_by")},
        "message": view,
    }
    # Their command line takes any other success for a failure, and its user would replay again.
    return Answer(answer, 200 if is_peers_client(request.scope["headers"]) else 201)


def _worth(standing: Standing) -> JsonObject:
    view = standing.explained
    return {"execution_id": view["execution_id"], "outcome_state": view["outcome"]["state"], "message": view}
