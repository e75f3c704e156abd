"""Dead letters: listed, redriven singly or many at a time, discarded; and the redrives under way."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ValidationError

from contracts.redrives import SELECTABLE_STATES
from contracts.words import Reason
from gateway.cursor import read_number, write_number
from gateway.dead_letters import Survey
from gateway.peer_views import peer_fields
from gateway.problems import refusal_of
from gateway.routing import Answer, Caller, House, StrictRoute, words
from gateway.schemas_conversation import PeerMessageView
from gateway.schemas_dead_letters import (
    CountView,
    DeadLetterPage,
    DiscardedManyView,
    DiscardOne,
    DiscardWish,
    FilterBody,
    RedrivePage,
    RedriveView,
    RedriveWish,
    SurveyView,
)
from router.receipts import receipts
from router.service import Standing

endpoints = APIRouter(route_class=StrictRoute, tags=["dead letters"])

Limit = Annotated[int, Query(ge=1, le=100)]
Instant = Annotated[str | None, Query(description="RFC 3339, with an offset.")]
_STATES = {state.value: state.value for state in SELECTABLE_STATES}
_REASONS = {reason.value: reason.value for reason in Reason}


@endpoints.get("/v1/dead-letters", responses={200: {"model": DeadLetterPage | CountView}})
async def list_dead_letters(
    caller: Caller,
    house: House,
    agent: str | None = None,
    state: str | None = None,
    reason: str | None = None,
    channel: str | None = None,
    since: Instant = None,
    until: Instant = None,
    limit: Limit = 50,
    cursor: str | None = None,
    count_only: bool = False,
) -> Answer:
    """Messages at one's agents that came to nothing, newest first, with their traces; or how many there are."""
    body = _filter(
        agent=agent,
        states=list(words(state, _STATES, "state")),
        reasons=list(words(reason, _REASONS, "reason")),
        channel=channel,
        since=since,
        until=until,
    )
    chosen = await house.dead_letters.chosen_by(body, caller, "dead_letter.read")
    if count_only:
        survey = await house.dead_letters.survey(chosen, caller)
        return Answer({"count": survey.matched, "is_exact": survey.is_exact})
    scope = f"dead-letters:{chosen}"
    views, next_after = await house.dead_letters.page(chosen, caller, limit=limit, after=read_number(cursor, scope))
    return Answer({"dead_letters": views, "next_cursor": write_number(next_after, scope)})


@endpoints.post("/v1/messages/{message_id}/redrive", status_code=201, responses={201: {"model": PeerMessageView}})
async def redrive_one(message_id: str, caller: Caller, house: House) -> Answer:
    """Deliver a dead letter once more, as a new execution; the gates are asked again."""
    found = await house.parts.service.find_message(message_id, caller, "message.redrive")
    await house.intake.readdressed(found.history.message, caller)
    return _answer(await house.parts.service.redrive(message_id, caller), 201)


@endpoints.post("/v1/messages/{message_id}/discard", responses={200: {"model": PeerMessageView}})
async def discard_one(message_id: str, wanted: DiscardOne, caller: Caller, house: House) -> Answer:
    """Say that nothing more is wanted of a dead letter, and why."""
    return _answer(await house.parts.service.discard(message_id, wanted.reason, caller))


@endpoints.post(
    "/v1/dead-letters/redrive",
    status_code=202,
    responses={200: {"model": SurveyView}, 202: {"model": RedriveView}},
)
async def redrive_many(wanted: RedriveWish, caller: Caller, house: House) -> Answer:
    """Redrive dead letters at a bounded rate; with `dry_run` say which, and what the gates would say, and no more."""
    chosen = await house.dead_letters.chosen(wanted, caller)
    survey = await house.dead_letters.survey(chosen, caller)
    if wanted.dry_run:
        samples = await house.dead_letters.samples(survey, caller)
        return Answer({"dry_run": True, **_counts(survey), "samples": samples})
    return Answer(await house.redrives.create(chosen, survey, wanted.rate_per_s, caller), 202)


@endpoints.post("/v1/dead-letters/discard", responses={200: {"model": DiscardedManyView}})
async def discard_many(wanted: DiscardWish, caller: Caller, house: House) -> Answer:
    """Discard dead letters, a thousand at most in one call."""
    chosen = await house.dead_letters.chosen(wanted, caller)
    result = await house.dead_letters.discard(chosen, wanted.reason, caller)
    return Answer(
        {
            "discarded": result.discarded,
            "refused": result.refused.total(),
            "refused_by_code": result.refused,
            "has_more": result.has_more,
        }
    )


@endpoints.get("/v1/redrives", responses={200: {"model": RedrivePage}})
async def list_redrives(caller: Caller, house: House) -> Answer:
    """One's redrives, the newest first; the last fifty are remembered."""
    return Answer({"redrives": await house.redrives.of_owner(caller.owner)})


@endpoints.get("/v1/redrives/{redrive_id}", responses={200: {"model": RedriveView}})
async def read_redrive(redrive_id: str, caller: Caller, house: House) -> Answer:
    """How far a redrive has got."""
    return Answer(await house.redrives.find(redrive_id, caller))


@endpoints.post("/v1/redrives/{redrive_id}/cancel", responses={200: {"model": RedriveView}})
async def cancel_redrive(redrive_id: str, caller: Caller, house: House) -> Answer:
    """Redrive no more; what was redriven stays so."""
    return Answer(await house.redrives.cancel(redrive_id, caller))


def _filter(**asked: Any) -> FilterBody:
    try:
        return FilterBody.model_validate(asked)
    except ValidationError as error:
        raise refusal_of(error.errors(include_url=False, include_input=False)) from None


def _counts(survey: Survey) -> dict[str, Any]:
    names = ("agent_id", "slug", "state", "reason")
    groups = [dict(zip(names, group, strict=True)) | {"count": n} for group, n in survey.groups.most_common()]
    return {
        "matched": survey.matched,
        "matched_is_exact": survey.is_exact,
        "left_out": survey.left_out,
        "by": groups,
    }


def _answer(standing: Standing, status: int = 200) -> Answer:
    view = standing.explained
    return Answer({**view, **peer_fields(view, receipts(standing.history))}, status)
