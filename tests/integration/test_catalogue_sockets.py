"""The catalogue of bad input over HTTP, part three: bytes no HTTP client would send, said to the real server."""

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from gateway import body
from gateway.http_protocol import BoundedHttp
from gateway.middleware import MAX_BODY_BYTES
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, running_rig
from tests.http_server import served, talk
from tests.refusals import nothing_stored

GOOD = b'{"to": "helper", "message": "x"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    rig: Rig
    port: int

    def head(self, *lines: bytes, path: bytes = b"/v1/messages") -> bytes:
        """The head of a POST that lacks nothing but what says how long its body is."""
        fixed = [b"POST " + path + b" HTTP/1.1", b"host: x", b"content-type: application/json"]
        key = b"authorization: Bearer " + self.rig.max.key.encode()
        return b"\r\n".join([*fixed, key, *lines, b"", b""])

    async def says(self, *pieces: bytes, then_eof: bool = False) -> bytes:
        """What the server says until it closes the connection; nothing may be stored by it."""
        async with nothing_stored(self.rig):
            return await talk(self.port, *pieces, then_eof=then_eof)


@pytest.fixture(scope="module")
async def house(nats_server: NatsEndpoint, redis_server: RedisEndpoint) -> AsyncIterator[House]:
    prefix = f"t{secrets.token_hex(5)}"
    async with running_rig(nats_server, redis_server, prefix) as rig:
        await rig.max.agent("helper")
        async with served(rig, nats_server, redis_server, prefix) as (_, port):
            yield House(rig=rig, port=port)


def status_of(heard: bytes) -> int:
    return int(heard.split(b" ", 2)[1])


def problem_in(heard: bytes) -> Json:
    """The problem details an answer bears, whose shape is checked on the way."""
    head, _, content = heard.partition(b"\r\n\r\n")
    problem: Json = json.loads(content)
    assert b"content-type: application/problem+json" in head.lower()
    assert problem.keys() == {"type", "title", "status", "detail", "error"}
    assert problem["status"] == problem["error"]["status"] == status_of(heard)
    return problem


@pytest.mark.parametrize(
    "lines",
    [
        [b"content-length: 33", b"content-length: 34"],
        [b"content-length: 33", b"content-length: 33"],
        [b"content-length: 33, 33"],
        [b"content-length: 33", b"transfer-encoding: chunked"],
        [b"transfer-encoding: chunked", b"content-length: 33"],
        [b"transfer-encoding: chunked, identity"],
        [b"transfer-encoding: xchunked"],
        [b"content-length: -1"],
        [b"content-length: +33"],
        [b"content-length: 0x21"],
        [b"content-length : 33"],
        [b"content-length:\r\n 33"],
        [b"content-length: 99999999999999999999999"],
    ],
)
async def test_a_length_that_can_be_read_in_two_ways_ends_the_connection(house: House, lines: list[bytes]) -> None:
    heard = await house.says(house.head(*lines), GOOD)

    assert status_of(heard) == 400
    assert heard.count(b"HTTP/1.1 ") == 1
    assert problem_in(heard)["error"]["code"] == "malformed_request"


@pytest.mark.parametrize(
    "chunk",
    [b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n0\r\n\r\n", b"2\r\n{}0\r\n\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n"],
)
async def test_a_chunk_of_no_length_ends_the_connection(house: House, chunk: bytes) -> None:
    heard = await house.says(house.head(b"transfer-encoding: chunked"), chunk)

    assert status_of(heard) == 400
    assert problem_in(heard)["error"]["code"] == "malformed_request"


async def test_a_body_shorter_than_announced_is_no_message(house: House) -> None:
    heard = await house.says(house.head(b"content-length: 100"), GOOD, then_eof=True)

    assert heard == b"" or status_of(heard) == 400


async def test_a_body_longer_than_announced_is_not_read_on(house: House) -> None:
    heard = await house.says(house.head(b"content-length: 10"), GOOD)

    assert status_of(heard) == 400
    assert problem_in(heard)["error"]["code"] == "malformed_request"


@pytest.mark.parametrize("path", [b"/v1/messages", b"/v1/agents"])
async def test_a_body_over_the_cap_is_answered_before_it_is_there(house: House, path: bytes) -> None:
    announced = house.head(b"content-length: %d" % (MAX_BODY_BYTES + 1), path=path)
    chunked = house.head(b"transfer-encoding: chunked", path=path)
    expecting = house.head(b"content-length: %d" % 10**9, b"expect: 100-continue", path=path)
    pieces = [b"8000\r\n" + b" " * 0x8000 + b"\r\n"] * 5

    for said in ([announced], [chunked, *pieces], [expecting]):
        heard = await house.says(*said)
        assert status_of(heard) == 413
        assert problem_in(heard)["error"]["code"] == "payload_too_large"
        assert b"connection: close" in heard.lower()


@pytest.mark.parametrize("path", [b"/v1/messages", b"/v1/agents"])
async def test_a_body_that_dribbles_is_given_up(house: House, path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert body.read.__kwdefaults__ is not None
    monkeypatch.setitem(body.read.__kwdefaults__, "timeout_s", 0.2)

    for length in (b"content-length: 1000", b"transfer-encoding: chunked"):
        heard = await house.says(house.head(length, path=path), b"1\r\n")
        assert status_of(heard) == 408
        assert problem_in(heard)["error"]["code"] == "request_timeout"
        assert b"connection: close" in heard.lower()


@pytest.mark.parametrize("said", [b"", b"POST /v1/mess", b"POST /v1/messages HTTP/1.1\r\nhost: x\r\n"])
async def test_a_head_that_does_not_come_is_given_up(
    house: House, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttp, "head_timeout_s", 0.2)

    heard = await house.says(said)

    assert status_of(heard) == 408
    assert problem_in(heard)["error"]["code"] == "request_timeout"


async def test_the_second_head_on_a_connection_is_waited_for_no_longer(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttp, "head_timeout_s", 0.2)

    heard = await house.says(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /healthz HTTP/1.1\r\nhos")

    assert heard.startswith(b"HTTP/1.1 200 ")
    assert heard.count(b"HTTP/1.1 408 ") == 1


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\nhost: x\n\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a\x00b: 1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: 1\rx-b: 2\r\n\r\n",
        b"GET /v1/agents/\xff HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /v1/agents/%ff%fe HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET http://evil.example/healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_bytes_that_are_hardly_http_are_never_our_fault(house: House, said: bytes) -> None:
    heard = await house.says(said, then_eof=True)

    assert heard == b"" or status_of(heard) < 500
