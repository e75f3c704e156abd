"""The gateway behind its real HTTP server: what only shows on a socket."""

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from gateway.http_protocol import MAX_HEAD_BYTES
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Caller, Rig, running_rig
from tests.http_server import served, talk, until


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("helper")
        yield running


async def test_a_head_without_end_is_cut_off(
    rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    async with served(rig, nats_server, redis_server, prefix) as (_, port):
        pieces = [b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: ", *[b"a" * 65_536] * 32]
        heard = await talk(port, *pieces)
        fine = b"x-a: " + b"a" * (MAX_HEAD_BYTES // 2) + b"\r\n"
        answer = await talk(port, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + fine + b"\r\n")

    assert heard == b"" or heard.startswith(b"HTTP/1.1 431 ")
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 2\r\ncontent-length: 3\r\n",
        b"content-length: 2\r\ntransfer-encoding: chunked\r\n",
        b"content-length: -1\r\n",
    ],
)
async def test_lengths_that_contradict_each_other_end_the_connection(
    rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str, head: bytes
) -> None:
    async with served(rig, nats_server, redis_server, prefix) as (_, port):
        heard = await talk(port, b"POST /v1/messages HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n{}")

    assert heard.startswith(b"HTTP/1.1 400 ")


async def test_a_body_too_large_is_answered_and_the_connection_closed(
    rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    key = rig.max.key.encode()
    head = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer " + key
    async with served(rig, nats_server, redis_server, prefix) as (_, port):
        announced = await talk(port, head + b"\r\ncontent-length: 131073\r\n\r\n")
        chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
        streamed = await talk(port, head + b"\r\ntransfer-encoding: chunked\r\n\r\n", *[chunk] * 5)

    assert b" 413 " in announced.splitlines()[0]
    assert b" 413 " in streamed.splitlines()[0]
    assert b"payload_too_large" in announced


async def test_the_end_of_the_program_lets_held_answers_go(
    rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    answers: list[httpx.Response] = []
    async with served(rig, nats_server, redis_server, prefix) as (server, port):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            caller = Caller(http=http, key=rig.max.key, owner="max")

            async def send() -> None:
                path = "/v1/messages?wait=outcome&timeout_s=100"
                answers.append(await caller.call("POST", path, json={"to": "helper", "message": "x"}))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                await until(lambda: bool(rig.gateway.app.state.rooms.holds.count))
                server.should_exit = True

    assert answers[0].status_code == 201
    assert answers[0].json()["waited"]["reached"] is False


async def test_nobody_waits_for_a_client_that_hung_up(
    rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    holds = rig.gateway.app.state.rooms.holds
    head = f"GET /v1/agents/helper/inbox?wait_s=60 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {rig.max.key}\r\n\r\n"
    async with served(rig, nats_server, redis_server, prefix) as (_, port):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(head.encode())
            await until(lambda: holds.count == 1)
        await until(lambda: holds.count == 0)
