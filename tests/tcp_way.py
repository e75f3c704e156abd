"""The way to a server for tests: a TCP relay that can stop carrying anything, or break off, as a bad network does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, SocketAttribute, SocketStream


class Way:
    """Between whoever connects to `port` and a server on this machine. Cut, it keeps connections and is silent."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._open = anyio.Event()
        self._open.set()
        self._carried: set[anyio.CancelScope] = set()
        self.port = 0

    def cut(self) -> None:
        self._open = anyio.Event()

    def heal(self) -> None:
        self._open.set()

    def sever(self) -> None:
        """Close the connections there are; others are carried as before."""
        for scope in self._carried:
            scope.cancel()

    async def take(self, client: SocketStream) -> None:
        async with client:
            await self._open.wait()
            async with (
                await anyio.connect_tcp("127.0.0.1", self._target_port) as server,
                anyio.create_task_group() as both,
            ):
                self._carried.add(both.cancel_scope)
                both.start_soon(self._carry, client, server, both.cancel_scope)
                both.start_soon(self._carry, server, client, both.cancel_scope)
            self._carried.discard(both.cancel_scope)

    async def _carry(self, source: ByteReceiveStream, sink: ByteSendStream, scope: anyio.CancelScope) -> None:
        try:
            async for chunk in source:
                await self._open.wait()
                await sink.send(chunk)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        scope.cancel()


@asynccontextmanager
async def way_to(url: str, *, host: str = "127.0.0.1") -> AsyncIterator[tuple[Way, str]]:
    """A way to the server of this URL from our address `host`, and the URL that leads over it."""
    parts = urlsplit(url)
    assert parts.port is not None
    way = Way(parts.port)
    listener = await anyio.create_tcp_listener(local_host=host)
    way.port = listener.listeners[0].extra(SocketAttribute.local_port)  # noqa: S610 - anyio's extra, not Django's
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, way.take)
        yield way, url.replace(f"{parts.hostname}:{parts.port}", f"{host}:{way.port}")
        tasks.cancel_scope.cancel()
