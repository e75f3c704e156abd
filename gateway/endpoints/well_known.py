"""Documents at well-known places: what this service is, and its two interfaces described. Open to everybody."""

from typing import Any, Final

from fastapi import APIRouter, Request

from gateway.asyncapi import asyncapi_document
from gateway.routing import Answer
from gateway.schemas_views import ServiceView

endpoints = APIRouter(tags=["well-known"])

OPENAPI = "/.well-known/openapi.json"
ASYNCAPI = "/.well-known/asyncapi.json"
_DOCUMENT: Final[dict[int | str, dict[str, Any]]] = {200: {"model": dict[str, Any]}}


@endpoints.get(OPENAPI, responses=_DOCUMENT)
async def read_openapi(request: Request) -> Answer:
    """The HTTP interface, as OpenAPI: the same as `/openapi.json`."""
    return Answer(request.app.openapi())


@endpoints.get(ASYNCAPI, responses=_DOCUMENT)
async def read_asyncapi(request: Request) -> Answer:
    """What travels over the broker, as AsyncAPI."""
    return Answer(asyncapi_document(version=request.app.version))


@endpoints.get("/.well-known/postroom.json", responses={200: {"model": ServiceView}})
async def read_service(request: Request) -> Answer:
    """What this is, and where the rest is described."""
    app = request.app
    links = {"openapi": OPENAPI, "asyncapi": ASYNCAPI, "health": "/healthz", "ready": "/readyz", "api": "/v1"}
    return Answer({"name": app.title, "version": app.version, "description": app.description, "links": links})
