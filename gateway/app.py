"""The gateway as an application: its routes, its one way with errors, and nothing a route could forget."""

from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.endpoints import agents, executions, health, inbox, keys, live_sessions, messages
from gateway.middleware import Edge
from gateway.openapi import document_of
from gateway.parts import Parts, Rooms
from gateway.problems import refusal_of, routing_problem

VERSION: Final = "0.1.0"


def create_app(parts: Parts) -> FastAPI:
    """Put the gateway together. It owns nothing it was given: whoever made the parts closes them."""
    app = FastAPI(
        title="postroom",
        version=VERSION,
        description="Delivery for AI agents: one address, four ways to be reached, and why it went that way.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.rooms = Rooms(parts)
    # First, so that the path everybody waits on is matched before any other.
    app.router.routes.insert(
        0, Route(messages.SendMessage.path, messages.SendMessage(app.state.rooms), methods=["POST"])
    )
    for noun in (messages, inbox, executions, live_sessions, agents, keys, health):
        app.include_router(noun.endpoints)
    app.add_middleware(Edge, metrics=parts.metrics)
    app.add_exception_handler(HTTPException, _routing_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.openapi = lambda: document_of(app)  # type: ignore[method-assign]
    return app


async def _routing_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return routing_problem(error.status_code, error.headers)


async def _validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    raise refusal_of(error.errors()) from None
