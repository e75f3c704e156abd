"""The first question to a server that may not listen yet: raw bytes, so that no client library retries or logs."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator

from infra.nats_jwt import Creds


@contextlib.asynccontextmanager
async def _connection(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def nats_answers(host: str, port: int, creds: Creds) -> bool:
    """Say whether the broker on `port` takes this user and answers a PING."""
    try:
        async with _connection(host, port) as (reader, writer):
            nonce = str(json.loads((await reader.readline()).removeprefix(b"INFO "))["nonce"])
            signature = base64.b64encode(creds.key.sign(nonce.encode())).decode()
            options = json.dumps({"jwt": creds.jwt, "sig": signature, "verbose": False, "pedantic": False})
            writer.write(f"CONNECT {options}\r\nPING\r\n".encode())
            return (await reader.readline()).strip() == b"PONG"
    except (OSError, ValueError, KeyError):
        # Not there yet, or something else that listens.
        return False


async def redis_answers(host: str, port: int, password: str, pid: int) -> bool:
    """Say whether the server on `port` is process `pid`, takes the password and answers a PING."""
    try:
        async with _connection(host, port) as (reader, writer):
            writer.write(f"AUTH {password}\r\nPING\r\nINFO server\r\n".encode())
            answers = [await reader.readline() for _ in ("AUTH", "PING")]
            return answers == [b"+OK\r\n", b"+PONG\r\n"] and f"process_id:{pid}\r\n".encode() in await _bulk(reader)
    except (OSError, EOFError):
        return False


async def _bulk(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readline()
    return await reader.readexactly(int(header[1:]))
