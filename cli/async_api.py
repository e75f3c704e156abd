"""The gateway's HTTP interface for code that waits for several things at once: `up` and its demo."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from cli.api import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, JsonObject, read_answer
from cli.failures import Unreachable


class AsyncApi:
    """Calls with one key. `Refused` and `Unreachable` are raised by every call."""

    def __init__(self, client: httpx.AsyncClient, key: str | None) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, key: str | None = None) -> AsyncIterator["AsyncApi"]:
        # Nothing between us and our own child: a proxy named in the environment is for the world outside.
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        async with httpx.AsyncClient(base_url=url, timeout=timeout, trust_env=False) as client:
            yield cls(client, key)

    def speaking_for(self, key: str) -> "AsyncApi":
        """The same connection with another key."""
        return AsyncApi(self._client, key)

    async def get(self, path: str, **query: Any) -> JsonObject:
        return await self._call("GET", path, query=query)

    async def post(self, path: str, body: JsonObject | None = None, **query: Any) -> JsonObject:
        """POST; `timeout_s` in the query is also how much longer the answer may take."""
        return await self._call("POST", path, body=body, query=query)

    async def patch(self, path: str, body: JsonObject) -> JsonObject:
        return await self._call("PATCH", path, body=body)

    async def delete(self, path: str) -> None:
        await self._call("DELETE", path)

    async def _call(
        self, method: str, path: str, *, body: JsonObject | None = None, query: JsonObject | None = None
    ) -> JsonObject:
        held_s = float((query or {}).get("timeout_s") or (query or {}).get("wait_s") or 0)
        timeout = httpx.Timeout(held_s + ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            response = await self._client.request(
                method, path, json=body, params=query, headers=self._headers, timeout=timeout
            )
        except httpx.TransportError as error:
            raise Unreachable(f"no answer from the gateway: {type(error).__name__}") from None
        return read_answer(response.status_code, response.content)
