"""Somebody who calls running gateways over HTTP, repeats itself until it is answered, and remembers every answer."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import anyio
import httpx

Json = dict[str, Any]
T = TypeVar("T")

PATIENCE_S: Final = 20.0
RETRY_S: Final = 0.1
POLL_S: Final = 0.05
LONGEST_S: Final = 5.0
"""A gateway may take its time while the broker is away, and has to say so before a caller would give up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and what came of it; status 0: the connection broke."""

    method: str
    path: str
    status: int
    seconds: float
    code: str | None
    retry_after: str | None


class Caller:
    """Owner max at one gateway after the other. `open` it before the first call."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.key = ""
        self._urls: list[str] = []
        self._next = 0

    def open(self, urls: list[str], key: str) -> None:
        self.key = key
        self._urls = urls
        self.api = httpx.AsyncClient(
            base_url=urls[0],
            headers={"authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(15.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )

    async def close(self) -> None:
        if self.key:
            await self.api.aclose()

    # --- one call --------------------------------------------------------------------------------------------------

    async def once(
        self, method: str, path: str, body: Json | None = None, *, headers: dict[str, str] | None = None, **params: Any
    ) -> httpx.Response | None:
        """One request to the gateway whose turn it is; None when the connection broke."""
        url = self._urls[self._next % len(self._urls)]
        self._next += 1
        began = anyio.current_time()
        try:
            answer = await self.api.request(method, f"{url}{path}", json=body, headers=headers, params=params)
        except httpx.TransportError:
            answer = None
        self._note(method, path, answer, anyio.current_time() - began)
        return answer

    async def call(
        self, method: str, path: str, body: Json | None = None, *, headers: dict[str, str] | None = None, **params: Any
    ) -> httpx.Response:
        """The first definitive answer: broken connections and 503 are tried again."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                answer = await self.once(method, path, body, headers=headers, **params)
                if answer is not None and answer.status_code != 503:
                    return answer
                await anyio.sleep(RETRY_S)

    async def get(self, path: str, **params: Any) -> Json:
        return _expect(await self.call("GET", path, **params), 200)

    async def post(self, path: str, body: Json | None = None) -> Json:
        return _expect(await self.call("POST", path, body or {}), 200, 201)

    def _note(self, method: str, path: str, answer: httpx.Response | None, seconds: float) -> None:
        status = answer.status_code if answer is not None else 0
        code = code_of(answer) if answer is not None and status >= 400 else None
        retry_after = answer.headers.get("retry-after") if answer is not None else None
        self.exchanges.append(
            Exchange(method=method, path=path, status=status, seconds=seconds, code=code, retry_after=retry_after)
        )

    # --- short ways ------------------------------------------------------------------------------------------------

    async def agent(self, *capabilities: str, **more: Any) -> Json:
        """A fresh agent of owner max."""
        body = {"slug": f"a-{secrets.token_hex(5)}", "delivery_capabilities": list(capabilities) or ["inbox"], **more}
        return await self.post("/v1/agents", body)

    async def attach(self, agent: Json, label: str = "main") -> str:
        """Attach a live session that shows its token only; returns the token."""
        body = {"label": label, "attestation": "token", "session_token": secrets.token_hex(20)}
        answer = await self.call("POST", f"/v1/agents/{agent['id']}/live-sessions", body)
        assert answer.status_code in {201, 409}, answer.text
        return body["session_token"]

    async def send(self, agent: Json, mode: str = "auto", *, key: str | None = None, **more: Any) -> Json:
        """Send under an Idempotency-Key until it is acknowledged; the message view."""
        body = {"to": agent["id"], "message": "Are you there?", "delivery_mode": mode, **more}
        headers = {"Idempotency-Key": key or secrets.token_hex(8)}
        return _expect(await self.call("POST", "/v1/messages", body, headers=headers), 200, 201)

    async def lease(self, sent: Json, worker: str = "worker", lease_s: int = 60) -> httpx.Response:
        body = {"worker_id": worker, "lease_s": lease_s}
        return await self.call("POST", f"/v1/executions/{sent['execution_id']}/claim", body)

    async def live_claim(self, sent: Json, token: str) -> httpx.Response:
        return await self.call("POST", f"/v1/executions/{sent['execution_id']}/live-claim", {"session_token": token})

    async def report(self, sent: Json, *, result: Any = "done", **more: Any) -> httpx.Response:
        body = {"success": True, "result": result, **more}
        return await self.call("POST", f"/v1/executions/{sent['execution_id']}/outcome", body)

    async def execution(self, sent: Json) -> Json:
        return await self.get(f"/v1/executions/{sent['execution_id']}")

    async def events(self, sent: Json) -> list[Json]:
        found: list[Json] = (await self.execution(sent))["events"]
        return found

    async def types(self, sent: Json) -> list[str]:
        """The kinds of a message's events, in order, but for the word that it is in context, which may get lost."""
        return [event["type"] for event in await self.events(sent) if event["type"] != "in_context"]

    async def until(self, sent: Json, *states: str, timeout_s: float = PATIENCE_S) -> Json:
        """The execution once it is in one of these states."""
        found: Json = {}
        with anyio.move_on_after(timeout_s):
            while (found := await self.execution(sent))["state"] not in states:
                await anyio.sleep(POLL_S)
            return found
        raise AssertionError(f"not {' or '.join(states)} in time, but {found.get('state')}: {found.get('events')}")

    async def pages(self, path: str, name: str, **params: Any) -> AsyncIterator[Json]:
        """Every entry of a list, page by page."""
        cursor: str | None = None
        while True:
            page = await self.get(path, **params, **({"cursor": cursor} if cursor else {}))
            for entry in page[name]:
                yield entry
            if (cursor := page["next_cursor"]) is None:
                return


def code_of(answer: httpx.Response) -> str:
    """The stable code of a refusal."""
    if "json" not in answer.headers.get("content-type", ""):
        return answer.text[:80]
    code: str = answer.json().get("error", {}).get("code", "")
    return code


def assert_sound(exchanges: list[Exchange], *, longest_s: float = LONGEST_S) -> None:
    """No answer blames us without saying when to come back, and nobody waits for long."""
    assert [each for each in exchanges if each.status >= 500 and each.status != 503] == []
    assert [each for each in exchanges if each.status == 503 and not each.retry_after] == []
    assert [each for each in exchanges if each.seconds > longest_s] == []


async def in_parallel(*calls: Callable[[], Awaitable[T]]) -> list[T]:
    """The results of all calls, made at once, in their order."""
    results: dict[int, T] = {}

    async def run(number: int, call: Callable[[], Awaitable[T]]) -> None:
        results[number] = await call()

    async with anyio.create_task_group() as group:
        for number, call in enumerate(calls):
            group.start_soon(run, number, call)
    return [results[number] for number in range(len(calls))]


async def met(condition: Callable[[], bool], *, timeout_s: float = PATIENCE_S) -> None:
    """Wait for a condition."""
    with anyio.fail_after(timeout_s):
        while not condition():
            await anyio.sleep(0.005)


def _expect(answer: httpx.Response, *statuses: int) -> Json:
    assert answer.status_code in statuses, f"{answer.status_code}: {answer.text}"
    body: Json = answer.json()
    return body
