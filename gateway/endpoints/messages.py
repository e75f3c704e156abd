"""Messages: sending (the hot path, plain ASGI), reading, cancelling, and the dry run of the router."""

import logging
import time
from collections.abc import Callable
from typing import Any

import structlog
from fastapi import APIRouter
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from contracts.records import Principal
from contracts.words import State
from gateway.body import read_object
from gateway.intake import Intake
from gateway.parts import Rooms
from gateway.problems import refusal_of
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_messages import NewMessage, RouteQuestion
from gateway.schemas_views import MessageView, RouteView
from gateway.waiting import read_hold
from router.explain import decision_view
from router.service import Draft, Standing

endpoints = APIRouter(route_class=StrictRoute, tags=["messages"])
log = structlog.get_logger()


class SendMessage:
    """`POST /v1/messages` from bytes to bytes: no framework between them, for this is the path everybody waits on."""

    path = "/v1/messages"

    def __init__(self, rooms: Rooms, *, timer: Callable[[], float] = time.perf_counter) -> None:
        self._parts = rooms.parts
        self._principal = rooms.authenticator.principal
        self._draft = Intake(rooms.directory).draft
        self._accept = rooms.parts.service.accept
        self._hold = rooms.waiting.hold
        self._timer = timer
        self._log = log.bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = self._timer()
        scope["route"] = self
        headers, query = scope["headers"], scope["query_string"]
        principal = await self._principal(headers, query)
        wait = read_hold(query) if query else None
        draft = await self._draft(_parsed(await read_object(scope, receive)), headers, principal)
        standing = await self._accept(draft)
        self._note(draft, standing, principal, self._timer() - started)
        extra: dict[str, Any] = {"replayed": True} if standing.replayed else {}
        status = 200 if standing.replayed else 201
        if wait is not None:
            standing, extra["waited"] = await self._hold(wait, standing, principal, receive)
        body = to_json({**standing.explained, **extra})
        await _send(send, status, body)

    def _note(self, draft: Draft, standing: Standing, principal: Principal, seconds: float) -> None:
        execution, message = standing.execution, standing.history.message
        mode = draft.wish.delivery_mode
        if not standing.replayed:
            self._parts.metrics.accepted(mode, execution.state, execution.trace)
        if self._log.is_enabled_for(logging.INFO):
            self._log.info(
                "accepted",
                message_id=message.id,
                agent_id=message.agent_id,
                owner=principal.owner,
                key_id=principal.key_id,
                delivery_mode=mode,
                effective_delivery_mode=execution.mode,
                state=execution.state,
                replayed=standing.replayed,
                trace=" ".join(
                    [f"{each.channel}/{each.gate}={each.verdict}:{each.reason}" for each in execution.trace]
                ),
                duration_ms=round(seconds * 1000, 3),
            )


def _parsed(value: dict[str, Any]) -> NewMessage:
    try:
        return NewMessage.model_validate(value)
    except ValidationError as error:
        raise refusal_of(error.errors(include_url=False, include_input=False)) from None


async def _send(send: Send, status: int, body: bytes) -> None:
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@endpoints.get("/v1/messages/{message_id}", responses={200: {"model": MessageView}})
async def read_message(message_id: str, caller: Caller, house: House) -> Answer:
    """Where a message stands, and why."""
    return _answer(await house.parts.service.find_message(message_id, caller))


@endpoints.post("/v1/messages/{message_id}/cancel", responses={200: {"model": MessageView}})
async def cancel_message(message_id: str, caller: Caller, house: House) -> Answer:
    """Call a message back before anybody works on it."""
    return _answer(await house.parts.service.cancel(message_id, caller))


@endpoints.post("/v1/messages/{message_id}/read", responses={200: {"model": MessageView}})
async def mark_read(message_id: str, caller: Caller, house: House) -> Answer:
    """The receiver has read an inbox message."""
    return _answer(await house.parts.service.mark(message_id, State.INBOX_READ, caller))


@endpoints.post("/v1/messages/{message_id}/ack", responses={200: {"model": MessageView}})
async def acknowledge(message_id: str, caller: Caller, house: House) -> Answer:
    """The receiver has dealt with an inbox message."""
    return _answer(await house.parts.service.acknowledge(message_id, caller))


@endpoints.post("/v1/route", responses={200: {"model": RouteView}})
async def route(question: RouteQuestion, caller: Caller, house: House) -> Answer:
    """Where a message would go now, and why. Stores nothing."""
    draft = await Intake(house.directory).draft(question, [], caller)
    decision = await house.parts.service.route(draft)
    recipient = draft.recipient
    return Answer(
        {
            "to": {"agent_id": recipient.id, "slug": recipient.slug, "owner": recipient.owner},
            "delivery_mode": draft.wish.delivery_mode,
            "live_fallback_mode": draft.wish.fallback.value,
            **decision_view(decision),
        }
    )


def _answer(standing: Standing) -> Answer:
    return Answer(standing.explained)
