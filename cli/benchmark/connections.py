"""A set of open connections to one server, closed at the end of a measurement."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cli.benchmark.http_connection import HttpConnection, Listener


@asynccontextmanager
async def connected(address: tuple[str, int], listener: Listener, count: int) -> AsyncIterator[list[HttpConnection]]:
    """`count` connections to `address`, all of them open before the block begins. Raises `OSError` when one is not."""
    loop = asyncio.get_running_loop()
    connections: list[HttpConnection] = []
    try:
        for _ in range(count):
            _, connection = await loop.create_connection(lambda: HttpConnection(listener), *address)
            connections.append(connection)
        yield connections
    finally:
        for connection in connections:
            connection.close()
