"""Streams of events: each ends in its time, whatever its client does."""

from collections.abc import AsyncGenerator

import anyio
from starlette.types import Message

from gateway.holds import Holds
from gateway.sse import EventSource, Streams
from infra.clock import SystemClock


async def frames() -> AsyncGenerator[bytes, None]:
    while True:
        yield b": \n\n"


async def checked() -> None:
    """The key always counts."""


async def nothing_comes() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


class StalledClient:
    """Takes the head of an answer and then reads nothing, so that the server cannot write any more."""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()


async def test_a_client_that_reads_nothing_gives_its_place_back_in_time() -> None:
    streams = Streams(holds=Holds(), clock=SystemClock(), max_per_owner=1)
    source = EventSource(frames, streams=streams, owner="max", check=checked, for_s=0.05)
    with anyio.fail_after(5):
        await source({"type": "http"}, nothing_comes, StalledClient().send)

    with streams.place("max"):
        pass
