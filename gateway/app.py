"""The gateway as an application: its routes, its one way with errors, and nothing a route could forget."""

from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.endpoints import (
    account,
    agents,
    api_keys,
    cues,
    dead_letters,
    events,
    evidence,
    executions,
    grants,
    guards,
    health,
    inbox,
    inbox_stream,
    jobs,
    keys,
    live_sessions,
    messages,
    monitors,
    projects,
    roster,
    service_accounts,
    sessions,
    subscriptions,
    threads,
    webhooks,
    well_known,
    workers,
)
from gateway.endpoints.messages import SendMessage
from gateway.middleware import Edge, RequestIds
from gateway.openapi import document_of
from gateway.parts import Parts, Rooms
from gateway.peer_door import at_the_root
from gateway.peer_errors import THEIR_CODES, respelling
from gateway.peer_views import is_peers_client
from gateway.problems import refusal_of, routing_problem

VERSION: Final = "0.1.0"
NOUNS: Final = (
    messages,
    threads,
    inbox,
    executions,
    evidence,
    dead_letters,
    cues,
    workers,
    live_sessions,
    monitors,
    roster,
    agents,
    sessions,
    projects,
    jobs,
    service_accounts,
    events,
    subscriptions,
    inbox_stream,
    webhooks,
    grants,
    guards,
    account,
    keys,
    api_keys,
    health,
    well_known,
)
"""In the order in which their paths are matched: a fixed word comes before a name in its place."""


class FrontDoor(FastAPI):
    """FastAPI with one path in front of it: sending a message passes none of the framework's layers.

    The path is a route like any other as well, so that it is listed, and refuses other methods.
    """

    fast_lane: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = at_the_root(scope)
            send = respelling(send, THEIR_CODES) if is_peers_client(scope["headers"]) else send
        if scope["type"] == "http" and scope["path"] == SendMessage.path and scope["method"] == "POST":
            await self.fast_lane(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(parts: Parts) -> FastAPI:
    """Put the gateway together. It owns nothing it was given: whoever made the parts closes them."""
    app = FrontDoor(
        title="postroom",
        version=VERSION,
        description="Delivery for AI agents: one address, four ways to be reached, and why it went that way.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.rooms = Rooms(parts)
    send_message = SendMessage(app.state.rooms)
    request_ids = RequestIds()
    layers = app.state.rooms.limits
    edge = Edge(layers.within(send_message), metrics=parts.metrics, request_ids=request_ids)
    app.fast_lane = layers.around(edge)
    app.router.routes.append(Route(SendMessage.path, send_message, methods=["POST"]))
    for noun in NOUNS:
        # The routes themselves: nothing is gained by a router within the router, and matching one costs time.
        app.router.routes.extend(noun.endpoints.routes)
    app.router.routes.extend(account.open_doors.routes)
    # The one added last is the outermost.
    app.add_middleware(layers.within)
    app.add_middleware(Edge, metrics=parts.metrics, request_ids=request_ids)
    app.add_middleware(layers.around)
    app.add_exception_handler(HTTPException, _routing_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.openapi = lambda: document_of(app)  # type: ignore[method-assign]
    return app


async def _routing_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return routing_problem(error.status_code, error.headers)


async def _validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The framework puts the place (body, query, path) before the field; ours are named by the field alone everywhere.
    details: ErrorDetails = error.errors()[0]
    details["loc"] = details["loc"][1:]
    raise refusal_of([details]) from None
