"""Fan-out: what any reader misses, has twice, out of order or otherwise than its neighbours is a failure."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from cli.benchmark import fanout
from cli.benchmark.exchanges import Expected, same_request
from cli.benchmark.fanout import Chronicle, Reader, judged, run_fanout
from cli.benchmark.http_connection import content_length
from cli.benchmark.sse_connection import ChunkedBody

TYPES = ("message.accepted", "message.delivered")


def frame(seq: int, message_id: str, kind: str = "message.accepted", **more: Any) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b" % (
        seq,
        kind.encode(),
        json.dumps({"seq": seq, "type": kind, "subject": message_id, **more}).encode(),
    )


A, A2 = frame(1, "a"), frame(2, "a", "message.delivered")
B, B2 = frame(4, "b"), frame(5, "b", "message.delivered")
FOREIGN = frame(3, "somebody else's")
ALL = [A, A2, FOREIGN, B, B2]


def failures(*given: Sequence[bytes], fault: str | None = None) -> dict[str, int]:
    """The failures of readers that were given these frames; `fault` is the first one's end."""
    chronicle = Chronicle()
    readers = [Reader(chronicle) for _ in given]
    for reader, frames in zip(readers, given, strict=True):
        for each in frames:
            reader.on_frame(each)
    readers[0].fault = fault
    return dict(judged(readers, chronicle, {"a": 0.0, "b": 0.0}, TYPES).failures)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (ALL, {}),
        ([A, A2, B, B2], {}),
        ([A, A2, FOREIGN, B], {"event missing": 1}),
        ([], {"event missing": 4}),
        ([A, A2, A2, B, B2], {"event repeated": 1}),
        ([A, B, A2, B2], {"event out of order": 1}),
        ([frame(1, "a", other="words"), A2, B, B2], {"event with different words": 1}),
    ],
)
def test_every_reader_has_every_event_once_in_order(given: Sequence[bytes], found: dict[str, int]) -> None:
    assert failures(ALL, given) == found


def test_an_event_that_nobody_has_is_missing_at_each_reader() -> None:
    assert failures(ALL[:-1], ALL[:-1]) == {"event missing": 2}


def test_an_event_that_is_told_under_two_sequences_is_no_event_told_once() -> None:
    again = [*ALL, frame(6, "b", "message.delivered")]
    assert failures(again, again) == {"event told twice": 1}


def test_a_stream_that_ends_is_a_failure() -> None:
    assert failures(ALL, ALL, fault="stream ended") == {"stream ended": 1}


def test_a_latency_counts_for_each_reader_from_when_the_send_was_due() -> None:
    chronicle = Chronicle()
    reader = Reader(chronicle)
    for each in ALL:
        reader.on_frame(each)
    reader.arrived_s = [10.0, 11.0, 12.0, 23.0, 24.0]
    tally = judged([reader], chronicle, {"a": 9.0, "b": 20.0}, TYPES)
    assert tally.latencies_s == [1.0, 2.0, 3.0, 4.0]


def test_chunks_are_put_together_wherever_they_are_cut() -> None:
    sent = b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    for cut in range(len(sent)):
        body = ChunkedBody()
        assert body.feed(sent[:cut]) + body.feed(sent[cut:]) == b"hello!"
        assert body.is_over
    with pytest.raises(ValueError, match="invalid literal"):
        ChunkedBody().feed(b"id: 1\r\n")


class Town:
    """A server whose streams tell of each message that is POSTed to it, as `said` has it for each reader in turn."""

    def __init__(self, said: Callable[[int, list[bytes]], list[bytes]], statuses: Sequence[int] = ()) -> None:
        self._said = said
        self._statuses = iter(statuses)
        self._telling = anyio.Lock()
        self._seq = 0
        self._readers: list[SocketStream] = []

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            reading = BufferedByteReceiveStream(stream)
            with suppress(anyio.IncompleteRead, anyio.BrokenResourceError):
                while True:
                    head = await reading.receive_until(b"\r\n\r\n", 65_536)
                    await reading.receive_exactly(content_length(head + b"\r\n") or 0)
                    await (self._open if head.startswith(b"GET") else self._tell)(stream)

    async def _open(self, stream: SocketStream) -> None:
        status = next(self._statuses, 200)
        await stream.send(b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n" % status)
        if status == 200:
            self._readers.append(stream)
            await stream.send(_chunk(b"retry: 1000\nid: 0\n\n"))

    async def _tell(self, stream: SocketStream) -> None:
        # One message after the other, as the log has them.
        async with self._telling:
            message_id = f"msg_{self._seq}"
            frames = [frame(self._seq + n, message_id, kind) for n, kind in enumerate(TYPES, 1)]
            self._seq += len(TYPES)
            body = json.dumps({"id": message_id}).encode()
            await stream.send(b"HTTP/1.1 201 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            for number, reader in enumerate(self._readers):
                for each in self._said(number, frames):
                    await reader.send(_chunk(each + b"\n\n"))


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


async def fan_out_from(town: Town) -> dict[str, Any]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, town.serve)
        address = "127.0.0.1", listener.extra_attributes[SocketAttribute.local_port]()
        url = f"http://127.0.0.1:{address[1]}"
        exchange = same_request(url, "POST", "/v1/messages", key="k", expected=Expected(status=201), body={})
        request = b"GET /v1/events/stream HTTP/1.1\r\n\r\n"
        result = await run_fanout(address, exchange, request, readers=3, types=TYPES, rate=500.0, count=10)
        tasks.cancel_scope.cancel()
    return result


async def test_all_events_at_all_readers_are_counted_and_timed() -> None:
    result = await fan_out_from(Town(lambda _, frames: frames))
    assert (result["n"], result["failures"]) == (3 * 10 * len(TYPES), {})
    assert result["p99_ms"] > 0
    assert result["events_per_s"] == pytest.approx(result["per_s"] / 3)


async def test_a_reader_that_is_told_nothing_fails_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "ARRIVED_WITHIN_S", 0.1)

    def to_the_first_only_once(number: int, frames: list[bytes]) -> list[bytes]:
        return frames if number or b'"msg_0"' in frames[0] else []

    result = await fan_out_from(Town(to_the_first_only_once))
    assert result["failures"] == {"event missing": 10 * len(TYPES)}


async def test_readers_that_do_not_catch_up_are_no_ground_to_measure_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "CAUGHT_UP_WITHIN_S", 0.1)
    with pytest.raises(ExceptionGroup) as raised:
        await fan_out_from(Town(lambda number, frames: frames if number else []))
    assert raised.group_contains(TimeoutError, match="have not caught up")


async def test_a_place_that_is_still_taken_is_asked_for_again() -> None:
    assert (await fan_out_from(Town(lambda _, frames: frames, [429, 429])))["failures"] == {}


async def test_a_stream_that_is_refused_fails_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    result = await fan_out_from(Town(lambda _, frames: frames, [503]))
    assert result["failures"] == {"event missing": 10 * len(TYPES), "stream status 503": 1}
