"""Server-sent events: read by the standard whatever the pieces they come in, and followed by their ids."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.api import Api
from cli.failures import Refused, Unreachable
from cli.server_events import EventReader, ServerEvent, follow

TALK = (
    b"retry: 250\nid: 7\n\n: alive\n\n"
    b"id: 8\nevent: message\ndata: one\n\n"
    b"event: batch\r\ndata: a\r\ndata:b\r\n\r\n"
    b"data\rid: 9\r\r"
    b"id: 10\ndata: \xe2\x80\xa8\xc2\x85\x0b\n\n"
    b"event: without data\n\n"
    b"data: cut"
)
EVENTS = [
    ServerEvent("8", "message", "one"),
    ServerEvent("8", "batch", "a\nb"),
    ServerEvent("9", "message", ""),
    ServerEvent("10", "message", "\u2028\x85\x0b"),
]


@given(cuts=st.lists(st.integers(0, len(TALK)), max_size=12))
def test_the_same_is_read_whatever_the_pieces(cuts: list[int]) -> None:
    reader = EventReader()
    places = [0, *sorted(cuts), len(TALK)]
    found = [event for start, end in pairwise(places) for event in reader.feed(TALK[start:end])]

    assert found == EVENTS
    assert (reader.last_id, reader.retry_s) == ("10", 0.25)


def test_what_was_cut_off_is_forgotten_and_its_id_as_well() -> None:
    reader = EventReader()
    assert list(reader.feed(b"id: 1\ndata: x\n\nid: 2\nevent: y\ndata: z\n")) == [ServerEvent("1", "message", "x")]

    reader.start_over()

    assert reader.last_id == "1"
    assert list(reader.feed(b"data: anew\n\n")) == [ServerEvent("1", "message", "anew")]


@contextmanager
def server_that_says(*answers: tuple[int, str, bytes]) -> Iterator[tuple[str, list[str | None]]]:
    """A server whose connections each get one answer (status, content type, body); and the ids it was asked from."""
    asked: list[str | None] = []
    rest = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Last-Event-ID"))
            status, kind, body = rest.pop(0)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            # More is promised than comes: the connection breaks off.
            self.send_header("Content-Length", str(len(body) + (1_000 if kind == STREAM else 0)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


STREAM = "text/event-stream; charset=utf-8"
PROBLEM = "application/problem+json"
BUSY = b'{"error": {"code": "too_many_streams", "message": "Too many.", "retry_after_s": 7}}'
REVOKED = b'{"error": {"code": "invalid_credentials", "message": "No."}}'


def test_a_stream_that_breaks_off_goes_on_behind_its_last_event() -> None:
    waits: list[float] = []
    with server_that_says(
        (200, STREAM, b"retry: 500\nid: 3\n\nid: 4\ndata: a\n\nid: 5\ndata: cut of"),
        (503, PROBLEM, BUSY),
        (200, STREAM, b"id: 5\ndata: b\n\n"),
        (401, PROBLEM, REVOKED),
    ) as (url, asked):
        events = follow(Api(url, "key"), "/stream", sleep=waits.append)
        found = [next(events), next(events)]
        with pytest.raises(Refused, match="invalid_credentials"):
            next(events)

    assert [(each.id, each.data) for each in found] == [("4", "a"), ("5", "b")]
    assert asked == [None, "4", "4", "5"]
    assert waits == [0.5, 7.0, 0.5]


@pytest.mark.parametrize("status", [404, 429])
def test_a_first_refusal_is_final(status: int) -> None:
    with server_that_says((status, PROBLEM, BUSY)) as (url, _), pytest.raises(Refused):
        next(follow(Api(url, "key"), "/stream"))


class Enough(Exception):
    """The test has seen what it wanted."""


def test_a_server_that_went_away_is_asked_ever_more_rarely() -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 7:
            raise Enough

    with server_that_says((200, STREAM, b"id: 1\ndata: a\n\n")) as (url, _):
        events = follow(Api(url, "key"), "/stream", sleep=sleep)
        assert next(events).data == "a"
    with pytest.raises(Enough):
        next(events)

    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_a_server_that_is_not_there_at_first_is_said_so() -> None:
    with server_that_says() as (url, _):
        pass
    with pytest.raises(Unreachable):
        next(follow(Api(url, "key"), "/stream"))
