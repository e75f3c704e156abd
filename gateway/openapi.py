"""The OpenAPI document: the framework's, with the hot path, the security scheme and the problems it cannot see."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from gateway.permissions import RULES
from gateway.problems import MEDIA_TYPE
from gateway.schemas_account import NewAccount
from gateway.schemas_conversation import PeerMessageView
from gateway.schemas_messages import NewMessage, SelectedMessage
from gateway.schemas_selection import MessagesSent
from gateway.schemas_views import Problem

Document = dict[str, Any]
_TEMPLATE: Final = "#/components/schemas/{model}"
_PROBLEM: Final[Document] = {
    "description": "What went wrong, and whose it is to fix.",
    "content": {MEDIA_TYPE: {"schema": {"$ref": _TEMPLATE.format(model="Problem")}}},
}
_PROBLEM_STATUSES: Final = ("400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "500", "503")
_PUBLIC: Final = frozenset({"/healthz", "/readyz", "/metrics", "/health", "/status", "/v1/info"})
_WELL_KNOWN: Final = "/.well-known/"
_WITHOUT_A_KEY: Final = frozenset({"/v1/auth/register"})


def document_of(app: FastAPI) -> Document:
    """The whole document, made once and kept."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _add_schemas(document)
        document["paths"]["/v1/messages"] = {"post": _send_message()}
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _complete(method.upper(), path, operation)
        app.openapi_schema = document
    return app.openapi_schema


def _add_schemas(document: Document) -> None:
    models = [
        (NewMessage, "validation"),
        (SelectedMessage, "validation"),
        (MessagesSent, "validation"),
        (NewAccount, "validation"),
        (PeerMessageView, "validation"),
        (Problem, "validation"),
    ]
    _, definitions = models_json_schema(models, ref_template=_TEMPLATE)  # type: ignore[arg-type]
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(definitions["$defs"])
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)


def _complete(method: str, path: str, operation: Document) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    if path in _PUBLIC or path.startswith(_WELL_KNOWN):
        return
    if path not in _WITHOUT_A_KEY:
        rule = RULES[method, path]
        operation["security"] = [{"key": [rule.scope.value] if rule.scope else []}]
    for status in _PROBLEM_STATUSES:
        responses.setdefault(status, _PROBLEM)


def _send_message() -> Document:
    view = _either("PeerMessageView", "MessagesSent")
    body = _either("NewMessage", "SelectedMessage")
    return {
        "tags": ["messages"],
        "summary": "Send Message",
        "description": "Accept a message: decided, stored durably, pushed. Held with `wait`. A selector instead of an "
        "address sends it to whoever fits: to one of them, or to each.",
        "operationId": "send_message",
        "parameters": _send_parameters(),
        "requestBody": {"required": True, "content": body},
        "responses": {
            "201": {"description": "Accepted.", "content": view},
            "200": {"description": "Accepted before, under the same Idempotency-Key.", "content": view},
        },
    }


def _either(*models: str) -> Document:
    return {"application/json": {"schema": {"anyOf": [{"$ref": _TEMPLATE.format(model=model)} for model in models]}}}


def _send_parameters() -> list[Document]:
    text = {"type": "string"}
    return [
        _parameter("wait", "query", {"type": "string", "enum": ["claimed", "outcome"]}),
        _parameter("timeout_s", "query", {"type": "integer", "minimum": 1, "maximum": 120, "default": 30}),
        _parameter("Idempotency-Key", "header", {**text, "minLength": 1, "maxLength": 255}),
        _parameter("X-Postroom-From-Agent", "header", text),
        _parameter("X-Postroom-Verify-Echo", "header", text),
    ]


def _parameter(name: str, place: str, schema: Document) -> Document:
    return {"name": name, "in": place, "required": False, "schema": schema}
