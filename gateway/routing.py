"""How our routes differ from the framework's: first the caller is known, then the body is read strictly and parsed."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import to_json

from contracts.errors import Invalid
from contracts.records import Principal
from gateway.body import read_object
from gateway.parts import Rooms, rooms_of


class Answer(Response):
    """JSON, written once and never validated again on its way out."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else to_json(content)


class StrictRoute(APIRoute):
    """A route for callers with a key. Forgetting to authenticate is not possible here."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        has_body = self.body_field is not None

        async def strict(request: Request) -> Response:
            scope = request.scope
            authenticator = rooms_of(request).authenticator
            principal = await authenticator.principal(scope["headers"], scope["query_string"])
            request.state.principal = principal
            if not has_body:
                return await handle(request)
            return await handle(_CheckedRequest(scope, await read_object(scope, request.receive)))

        return strict


class _CheckedRequest(Request):
    """A request whose body has been read and checked already."""

    def __init__(self, scope: Any, value: dict[str, Any]) -> None:
        super().__init__(scope)
        self._value = value

    async def body(self) -> bytes:
        return b"{}"  # anything but empty: what counts is the value below

    async def json(self) -> Any:
        return self._value


def caller(request: Request) -> Principal:
    principal = request.state.principal
    assert isinstance(principal, Principal)
    return principal


Caller = Annotated[Principal, Depends(caller)]
House = Annotated[Rooms, Depends(rooms_of)]


def words(text: str | None, allowed: dict[str, Any], field: str) -> tuple[Any, ...]:
    """A comma list of a query as values; empty when it is absent. Raises `Invalid` for a word that is not allowed."""
    if text is None:
        return ()
    if any(word not in allowed for word in text.split(",")):
        raise Invalid("invalid_enum", f"Each word is one of: {', '.join(allowed)}.", field=field)
    return tuple(dict.fromkeys(allowed[word] for word in text.split(",")))
