"""A program's own small HTTP server: is it alive, is it ready, what does it count."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from contracts.errors import Unavailable


@asynccontextmanager
async def status_server(
    host: str, port: int, *, ready: Callable[[], Awaitable[None]], registry: CollectorRegistry
) -> AsyncIterator[int]:
    """Serve `/healthz`, `/readyz` and `/metrics` while inside; yields the port. `ready` raises `Unavailable`.

    Raises `OSError` when the port is taken.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def readyz(_: web.Request) -> web.Response:
        try:
            await ready()
        except Unavailable as error:
            return web.json_response({"ok": False, "reason": error.code}, status=503)
        return web.json_response({"ok": True})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
