"""Messages: sending (the hot path, plain ASGI), reading, cancelling, and the dry run of the router."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog
from fastapi import APIRouter, Request
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from contracts.errors import Conflict, Invalid, TooMany
from contracts.records import Principal
from contracts.words import State
from gateway.body import read_object
from gateway.candidates import PICK_ALL
from gateway.intake import read_headers
from gateway.parts import Rooms
from gateway.peer_views import as_theirs, is_peers_client, peer_fields
from gateway.permissions import rule_of
from gateway.problems import refusal_of
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas import Body
from gateway.schemas_conversation import MessageWithReceipts, PeerMessageView, ReceiptsView
from gateway.schemas_messages import NewMessage, RouteQuestion, SelectedMessage
from gateway.schemas_selection import RoutesView
from gateway.schemas_views import RouteView
from gateway.selection_views import route_view, sent_view
from gateway.selections import SelectedSend
from gateway.verify_echo import echo_of
from gateway.waiting import Hold, read_hold
from router.explain import trace_view
from router.receipts import receipts
from router.service import Draft, Standing

endpoints = APIRouter(route_class=StrictRoute, tags=["messages"])
log = structlog.get_logger()
T = TypeVar("T", bound=Body)
_DOWNGRADED = [(b"x-postroom-priority-downgraded", b"true"), (b"x-cueapi-priority-downgraded", b"true")]


class SendMessage:
    """`POST /v1/messages` from bytes to bytes: no framework between them, for this is the path everybody waits on."""

    path = "/v1/messages"

    def __init__(self, rooms: Rooms, *, timer: Callable[[], float] = time.perf_counter) -> None:
        self._parts = rooms.parts
        self._principal = rooms.authenticator.principal
        self._check_of = rooms.authenticator.check_of
        self._admit = rule_of(("POST",), self.path).admit
        self._draft = rooms.intake.draft
        self._accept = rooms.parts.service.accept
        self._selections = rooms.selections
        self._tell_trip = rooms.guard_trips.tell
        self._hold = rooms.waiting.hold
        self._timer = timer
        self._log = log.bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = self._timer()
        scope["route"] = self
        headers, query = scope["headers"], scope["query_string"]
        principal = await self._principal(headers, query)
        self._admit(principal)
        wait = read_hold(query) if query else None
        said = read_headers(headers)
        value = await read_object(scope, receive)
        if isinstance(value.get("to"), dict):
            wanted = _parsed(SelectedMessage, value)
            selected = SelectedSend(wanted=wanted, headers=said, principal=principal, accept=self._accepted)
            if wanted.to.pick == PICK_ALL:
                _refuse_to_wait(wait)
                await self._send_all(selected, started, send, is_theirs=is_peers_client(headers))
                return
            draft, standing = await self._selections.send_one(selected)
        else:
            draft = await self._draft(_parsed(NewMessage, value), said, principal)
            standing = await self._accepted(draft)
        self._note(draft, standing, principal, self._timer() - started)
        extra: dict[str, Any] = {"replayed": True} if standing.replayed else {}
        if said.verify_echo:
            extra.update(echo_of(draft.body))
        status = 200 if standing.replayed else 201
        downgraded = standing.history.message.context.priority_downgraded
        if wait is not None:
            standing, extra["waited"] = await self._hold(wait, standing, principal, receive, self._check_of(headers))
        rest = {"trace": trace_view(standing.execution.trace), **peer_fields(standing.view), **extra}
        body = _sent(standing, rest, is_theirs=is_peers_client(headers))
        await _send(send, status, body, _DOWNGRADED if downgraded else ())

    async def _send_all(self, selected: SelectedSend, started: float, send: Send, *, is_theirs: bool) -> None:
        result = await self._selections.send_all(selected)
        seconds = self._timer() - started
        for draft, standing in result.sent.values():
            self._note(draft, standing, selected.principal, seconds)
        view = sent_view(result, is_theirs=is_theirs)
        if selected.headers.verify_echo:
            view.update(echo_of(selected.wanted.message))
        contexts = [standing.history.message.context for _, standing in result.sent.values()]
        downgraded = any(context.priority_downgraded for context in contexts)
        status = 200 if result.is_replayed else 201
        await _send(send, status, to_json(view), _DOWNGRADED if downgraded else ())

    async def _accepted(self, draft: Draft) -> Standing:
        try:
            return await self._accept(draft)
        except (Conflict, TooMany) as refusal:
            await self._tell_trip(draft, refusal)
            raise

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
                effective_delivery_mode=execution.mode and execution.mode.value,
                state=execution.state.value,
                replayed=standing.replayed,
                trace=" ".join(
                    [f"{each.channel}/{each.gate}={each.verdict}:{each.reason}" for each in execution.trace]
                ),
                duration_ms=round(seconds * 1000, 3),
            )


def _refuse_to_wait(wait: Hold | None) -> None:
    if wait is not None:
        raise Invalid("field_not_applicable", "wait goes with a message to one agent.", field="wait")


def _parsed(model: type[T], value: dict[str, Any]) -> T:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise refusal_of(error.errors(include_url=False, include_input=False)) from None


def _sent(standing: Standing, rest: dict[str, Any], *, is_theirs: bool) -> bytes:
    if is_theirs:
        return to_json({**as_theirs(standing.view), **rest})
    # The view was written for the row already: what only the answer has goes behind it.
    return b"%b,%b" % (standing.written(to_json)[:-1], to_json(rest)[1:])


async def _send(send: Send, status: int, body: bytes, more: Sequence[tuple[bytes, bytes]]) -> None:
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@endpoints.get("/v1/messages/{message_id}", responses={200: {"model": MessageWithReceipts}})
async def read_message(message_id: str, request: Request, caller: Caller, house: House) -> Answer:
    """Where a message stands, and why."""
    standing = await house.parts.service.find_message(message_id, caller)
    return _answer(standing, request, receipts=receipts(standing.history))


@endpoints.get("/v1/messages/{message_id}/receipts", responses={200: {"model": ReceiptsView}})
async def read_receipts(message_id: str, caller: Caller, house: House) -> Answer:
    """How far a message got, and when."""
    standing = await house.parts.service.find_message(message_id, caller)
    return Answer({"message_id": standing.history.message.id, "receipts": receipts(standing.history)})


@endpoints.post("/v1/messages/{message_id}/cancel", responses={200: {"model": PeerMessageView}})
async def cancel_message(message_id: str, request: Request, caller: Caller, house: House) -> Answer:
    """Call a message back before anybody works on it."""
    return _answer(await house.parts.service.cancel(message_id, caller), request)


@endpoints.post("/v1/messages/{message_id}/read", responses={200: {"model": PeerMessageView}})
async def mark_read(message_id: str, request: Request, caller: Caller, house: House) -> Answer:
    """The receiver has read an inbox message."""
    return _answer(await house.parts.service.mark(message_id, State.INBOX_READ, caller), request)


@endpoints.post("/v1/messages/{message_id}/ack", responses={200: {"model": PeerMessageView}})
async def acknowledge(message_id: str, request: Request, caller: Caller, house: House) -> Answer:
    """The receiver has dealt with an inbox message."""
    return _answer(await house.parts.service.acknowledge(message_id, caller), request)


@endpoints.post("/v1/route", responses={200: {"model": RouteView | RoutesView}})
async def route(question: RouteQuestion, request: Request, caller: Caller, house: House) -> Answer:
    """Where a message would go now, and why. Stores nothing, counts nothing."""
    headers, to = read_headers(request.scope["headers"]), question.to
    if isinstance(to, str):
        draft = await house.intake.question(question, to, headers, caller)
        return Answer(route_view(draft, await house.parts.service.route(draft)))
    selection, routes = await house.selections.routes(question, to, headers, caller)
    views = [route_view(draft, decision) for draft, decision in routes]
    return Answer({"selection": selection, "routes": views} if to.pick == PICK_ALL else views[0])


def _answer(standing: Standing, request: Request, **more: Any) -> Answer:
    view = standing.explained
    shown = as_theirs(view) if is_peers_client(request.scope["headers"]) else view
    return Answer({**shown, **peer_fields(view, receipts(standing.history)), **more})
