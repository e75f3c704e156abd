"""Receivers of webhooks that behave as they are told: well, badly, slowly, or like no server at all."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from aiohttp import web


@dataclass(kw_only=True)
class Receiver:
    """A real HTTP server that keeps what it got and answers as it is told."""

    url: str = ""
    status: int = 204
    hangs: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    script: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    """What it does instead of answering with `status`."""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((dict(request.headers), await request.read()))
        if self.hangs:
            await anyio.sleep(5)
        if self.script is not None:
            return await self.script(request)
        return web.Response(status=self.status, headers=self.headers)


@asynccontextmanager
async def receiving(**fields: object) -> AsyncIterator[Receiver]:
    receiver = Receiver(**fields)  # type: ignore[arg-type]
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


async def resets(request: web.Request) -> web.StreamResponse:
    """Take the request and cut the line."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def lies_about_its_length(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 500 Oops\r\ncontent-length: 1000\r\n\r\nshort")
    request.transport.close()
    return web.Response()


async def talks_without_end(request: web.Request) -> web.StreamResponse:
    """A body of a gigabyte, as far as anybody reads."""
    response = web.StreamResponse(status=500, headers={"content-length": str(1024**3)})
    await response.prepare(request)
    chunk = b"x" * 65_536
    try:
        for _ in range(16_384):
            await response.write(chunk)
    except ConnectionError:
        return response
    return response
