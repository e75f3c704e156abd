"""The gateway behind its real HTTP server for tests: its app on a socket, and raw bytes said to it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from gateway.__main__ import Server, server_config
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Rig, settings_for


@asynccontextmanager
async def served(rig: Rig, nats: NatsEndpoint, redis: RedisEndpoint, prefix: str) -> AsyncIterator[tuple[Server, int]]:
    """The rig's app on a free port of this machine, until the block ends."""
    settings = settings_for(nats, redis, prefix, http_port=0)
    server = Server(server_config(settings, rig.gateway.app), rig.gateway.app.state.rooms)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server._serve)  # without the signal handlers, which are the main program's
        await until(lambda: server.started)
        yield server, server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True


async def until(condition: Callable[[], bool], limit_s: float = 10) -> None:
    with anyio.fail_after(limit_s):
        while not condition():
            await anyio.sleep(0.005)


async def talk(port: int, *pieces: bytes, then_eof: bool = False) -> bytes:
    """Everything the server says to these bytes until it closes the connection."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        try:
            for piece in pieces:
                await stream.send(piece)
            if then_eof:
                await stream.send_eof()
        except anyio.BrokenResourceError:
            pass
        heard = b""
        with anyio.fail_after(10):
            try:
                async for chunk in stream:
                    heard += chunk
            except anyio.BrokenResourceError:
                pass
        return heard
