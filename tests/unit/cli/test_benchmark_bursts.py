"""Bursts of sends: exactly one message comes of one key, and whatever else comes of it is a failure."""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from cli.benchmark.bursts import Answer, burst_fault, run_bursts
from cli.benchmark.exchanges import Expected, same_request
from cli.benchmark.http_connection import content_length


def created(message_id: str) -> Answer:
    return 201, json.dumps({"id": message_id}).encode()


def replayed(message_id: str) -> Answer:
    return 200, json.dumps({"id": message_id, "replayed": True}).encode()


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ([replayed("a"), created("a"), replayed("a")], None),
        ([created("a"), created("a"), replayed("a")], "2 of 3 created"),
        ([replayed("a"), replayed("a")], "0 of 2 created"),
        ([created("a"), replayed("b")], "ids of one key differ"),
        ([created("a"), (200, b'{"id": "a"}')], "replayed not told"),
        ([(201, b'{"id": "a", "replayed": true}'), replayed("a")], "replayed not told"),
        ([created("a"), (409, b"{}")], "status 409"),
        ([created("a"), (503, b"no json")], "status 503"),
        ([created("a"), (200, b"no json")], "body is no view"),
        ([created("a"), (200, b"[]")], "body is no view"),
    ],
)
def test_one_key_makes_one_message_and_tells_all_others_of_it(answers: Sequence[Answer], fault: str | None) -> None:
    assert burst_fault(answers, one_key=True) == fault


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ([created("a"), created("b")], None),
        ([created("a"), replayed("b")], "1 of 2 created"),
        ([created("a"), created("a")], "ids of different keys are the same"),
    ],
)
def test_different_keys_make_as_many_messages(answers: Sequence[Answer], fault: str | None) -> None:
    assert burst_fault(answers, one_key=False) == fault


class Sender:
    """A server that creates one message per Idempotency-Key, and notes the keys in the order they came."""

    def __init__(self, *, forgets: bool = False) -> None:
        self.keys: list[bytes] = []
        self._forgets = forgets

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            reading = BufferedByteReceiveStream(stream)
            with suppress(anyio.IncompleteRead, anyio.BrokenResourceError):
                while True:
                    head = await reading.receive_until(b"\r\n\r\n", 65_536)
                    await reading.receive_exactly(content_length(head + b"\r\n") or 0)
                    await stream.send(self._answer(head.partition(b"Idempotency-Key: ")[2].partition(b"\r\n")[0]))

    def _answer(self, key: bytes) -> bytes:
        is_new = self._forgets or key not in self.keys
        self.keys.append(key)
        status, body = (created if is_new else replayed)(key.decode())
        return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


async def burst_at(sender: Sender, **more: Any) -> dict[str, Any]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, sender.serve)
        address = "127.0.0.1", listener.extra_attributes[SocketAttribute.local_port]()
        exchange = same_request(
            "http://127.0.0.1",
            "POST",
            "/v1/messages",
            key="k",
            expected=Expected(status=201),
            body={"to": "a"},
            unique_header="Idempotency-Key",
            run="r",
        )
        result = await run_bursts(address, exchange, size=4, duration_s=0.05, **more)
        tasks.cancel_scope.cancel()
    return result


async def test_all_sends_of_a_burst_carry_its_key_and_the_next_burst_another() -> None:
    sender = Sender()
    result = await burst_at(sender, one_key=True)
    assert result["failed"] == 0
    assert result["n"] >= 2
    assert sender.keys[:8] == [b"r-0"] * 4 + [b"r-1"] * 4
    assert len(sender.keys) == 4 * result["n"]


async def test_every_send_carries_a_key_of_its_own_where_one_is_not_asked_for() -> None:
    sender = Sender()
    result = await burst_at(sender, one_key=False)
    assert result["failed"] == 0
    assert len(set(sender.keys)) == len(sender.keys) == 4 * result["n"]


async def test_a_server_that_forgets_its_keys_gives_failures_and_no_latency() -> None:
    result = await burst_at(Sender(forgets=True), one_key=True)
    assert result["n"] == 0
    assert result["failures"]["4 of 4 created"] >= 1
