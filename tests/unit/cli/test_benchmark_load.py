"""The load generator: what fails is counted as a failure, whatever the way it fails, and never as a success."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from cli.benchmark.arrivals import Arrivals
from cli.benchmark.closed_loop import run_closed
from cli.benchmark.exchanges import Expected, RequestsInTurn, SameRequest, same_request
from cli.benchmark.http_connection import content_length
from cli.benchmark.lag import is_shown, run_lag
from cli.benchmark.open_loop import run_open
from cli.benchmark.receiver import receiving, webhook_id

Answerer = Callable[[bytes], bytes | None]
GOOD = json.dumps({"id": "msg_1", "state": "in_inbox"}).encode()
STRICT = Expected(status=201, members=["id"], values={"state": "in_inbox"}, parsed_share=1)


def answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


@asynccontextmanager
async def serving(answerer: Answerer) -> AsyncIterator[tuple[str, int]]:
    """A server that answers with what `answerer` says to a request's head; None closes the connection."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            reading = BufferedByteReceiveStream(stream)
            with suppress(anyio.IncompleteRead, anyio.BrokenResourceError):
                while True:
                    head = await reading.receive_until(b"\r\n\r\n", 65_536)
                    await reading.receive_exactly(content_length(head + b"\r\n") or 0)
                    said = answerer(head)
                    if said is None:
                        return
                    for piece in (said[:20], said[20:]):
                        await stream.send(piece)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield "127.0.0.1", listener.extra_attributes[SocketAttribute.local_port]()
        tasks.cancel_scope.cancel()


def posting(address: tuple[str, int], expected: Expected = STRICT, unique_header: str | None = None) -> SameRequest:
    url = f"http://{address[0]}:{address[1]}"
    return same_request(
        url,
        "POST",
        "/v1/messages",
        key="k",
        expected=expected,
        body={"to": "a"},
        unique_header=unique_header,
        run="r1",
    )


async def closed(answerer: Answerer, expected: Expected = STRICT, **more: Any) -> dict[str, Any]:
    async with serving(answerer) as address:
        settings = {"in_flight": 2, "duration_s": 0.05, "grace_s": 0.1} | more
        return await run_closed(address, posting(address, expected), **settings)


async def opened(answerer: Answerer, **more: Any) -> dict[str, Any]:
    async with serving(answerer) as address:
        settings = {"rate": 1000.0, "count": 20, "connections": 4, "grace_s": 0.2} | more
        return await run_open(address, posting(address), **settings)


async def test_what_is_answered_as_expected_is_counted_and_timed() -> None:
    result = await closed(lambda _: answer(201, GOOD))
    assert result["n"] >= 2
    assert result["failed"] == 0
    assert result["p50_ms"] > 0
    assert result["per_s"] == pytest.approx(result["n"] / result["elapsed_s"])


@pytest.mark.parametrize("run", [closed, opened])
@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (answer(503, b"{}"), "status 503"),
        (answer(200, GOOD), "status 200"),
        (answer(201, b"no json"), "body is not JSON"),
        (answer(201, b"[]"), "body is no object"),
        (answer(201, b'{"state": "in_inbox"}'), "body without id"),
        (answer(201, b'{"id": "msg_1", "state": "cancelled"}'), "body with another state"),
        (b"HTTP/1.1 201 X\r\n\r\n", "answer without Content-Length"),
        (answer(201, GOOD) + b"more", "answer out of order"),
        (b"HTTP/1.1 two X\r\nContent-Length: 0\r\n\r\n", "answer out of order"),
        (None, "connection lost"),
    ],
)
async def test_a_bad_answer_is_a_failure_of_its_kind_and_gives_no_latency(
    run: Callable[[Answerer], Awaitable[dict[str, Any]]], bad: bytes | None, fault: str
) -> None:
    result = await run(lambda _: bad)
    assert result["n"] == 0
    assert result["per_s"] == 0
    assert result["failures"][fault] > 0
    assert "p50_ms" not in result


async def test_good_and_bad_answers_are_told_apart_one_by_one() -> None:
    numbers = iter(range(20))
    result = await opened(lambda _: answer(500 if next(numbers) % 4 == 0 else 201, GOOD))
    assert (result["n"], result["failures"]) == (15, {"status 500": 5})


@pytest.mark.parametrize("run", [closed, opened])
async def test_a_request_that_is_never_answered_is_a_failure(
    run: Callable[[Answerer], Awaitable[dict[str, Any]]],
) -> None:
    result = await run(lambda _: b"")
    assert result["n"] == 0
    assert result["failures"]["no answer in time"] > 0


async def test_every_offered_request_is_accounted_for_even_when_none_could_be_sent() -> None:
    result = await opened(lambda _: b"", connections=1)
    assert result["failed"] == 20


async def test_latency_counts_from_the_instant_a_request_was_due() -> None:
    """One connection, and an answer that takes much longer than the pause between requests: the queue shows."""
    async with serving(lambda _: answer(201, GOOD)) as address:
        result = await run_open(address, posting(address), rate=1_000_000.0, count=200, connections=1)
    assert result["n"] == 200
    assert result["p99_ms"] > 3 * (result["elapsed_s"] * 1000 / 200)


async def test_only_a_share_of_bodies_is_parsed_but_every_status_is_checked() -> None:
    expected = Expected(status=201, members=["id"], parsed_share=4)
    assert [expected.fault(number, 201, b"{}") for number in range(5)] == [
        "body without id",
        None,
        None,
        None,
        "body without id",
    ]
    assert expected.fault(1, 429, b"{}") == "status 429"


def test_a_unique_header_is_different_in_each_request() -> None:
    exchange = posting(("127.0.0.1", 80), unique_header="Idempotency-Key")
    first, second = exchange.render(1), exchange.render(2)
    assert b"\r\nIdempotency-Key: r1-1\r\n" in first
    assert b"\r\nIdempotency-Key: r1-2\r\n" in second
    assert first.endswith(b'\r\n\r\n{"to": "a"}')


@pytest.mark.parametrize("written", ["content-length", "Content-Length", "CONTENT-LENGTH"])
def test_content_length_is_read_in_any_case(written: str) -> None:
    assert content_length(f"HTTP/1.1 200 OK\r\n{written}: 42\r\n\r\n".encode()) == 42


async def test_no_more_is_sent_than_was_asked_for() -> None:
    result = await closed(lambda _: answer(201, GOOD), count=5, duration_s=10)
    assert result["n"] == 5
    assert result["elapsed_s"] < 10
    assert (await closed(lambda _: answer(201, GOOD), count=1, duration_s=10))["n"] == 1


def test_requests_in_turn_begin_anew_behind_the_last() -> None:
    exchange = RequestsInTurn([b"a", b"b"], STRICT)
    assert [exchange.render(number) for number in range(3)] == [b"a", b"b", b"a"]


async def test_what_never_arrives_is_a_failure_and_a_repetition_counts_once() -> None:
    arrivals = Arrivals(3)
    arrivals.arrived("a", 1.5)
    arrivals.sent("a", 1.0)
    arrivals.sent("b", 2.0)
    arrivals.arrived("b", 2.25)
    arrivals.arrived("b", 9.0)
    arrivals.sent("c", 3.0)
    await arrivals.wait(0, "push missing")
    assert arrivals.tally.latencies_s == [0.5, 0.25]
    assert arrivals.tally.failures == {"push missing": 1}


def test_a_page_shows_a_message_it_contains_or_has_gone_past() -> None:
    page = ["msg_9", "msg_8", "msg_7"]
    assert is_shown("msg_8", page)
    assert is_shown("msg_2", page)
    assert not is_shown("msg_99", page)
    assert not is_shown("msg_1", [])


async def test_the_lag_is_that_of_the_read_that_first_shows_the_message() -> None:
    pages = iter([b'{"executions": []}', b'{"executions": []}'])

    def answer_to(head: bytes) -> bytes:
        if head.startswith(b"GET"):
            return answer(200, next(pages, b'{"executions": [{"id": "msg_1"}]}'))
        return answer(201, GOOD)

    async with serving(answer_to) as address:
        list_request = b"GET /v1/executions HTTP/1.1\r\n\r\n"
        result = await run_lag(address, posting(address), list_request, rate=1000.0, count=5)
    assert result["failed"] == 0
    assert result["n"] >= 1
    assert result["list_reads"] == result["n"] + 2


async def test_a_list_that_refuses_is_a_failure() -> None:
    async with serving(lambda _: answer(201, GOOD)) as address:
        exchange = posting(address)
        result = await run_lag(address, exchange, exchange.render(0), rate=1000.0, count=3)
    assert result["n"] == 0
    assert result["failures"]["list status 201"] > 0


async def test_the_receiver_tells_the_webhook_id_of_each_request() -> None:
    heard: list[str] = []
    async with receiving() as receiver:
        receiver.on_arrival = lambda message_id, _: heard.append(message_id)
        port = int(receiver.url.rpartition(":")[2].partition("/")[0])
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"POST /hook HTTP/1.1\r\nWebhook-Id: msg_7\r\nContent-Length: 2\r\n\r\n{")
            await stream.send(b"}")
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 OK\r\n")
    assert heard == ["msg_7"]
    assert webhook_id(b"POST / HTTP/1.1\r\nHost: a") == ""
