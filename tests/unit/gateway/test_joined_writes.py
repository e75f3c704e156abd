"""The head of an answer leaves with its body; alone only when the body takes its time, and never after the end."""

import asyncio
from typing import Any, cast

import anyio.lowlevel
import pytest

from gateway.joined_writes import JoinedWrites

HEAD = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n"


class Wire:
    """What a transport was given, write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.writes.append(data)

    def close(self) -> None:
        self.is_closed = True

    def get_extra_info(self, name: str) -> str:
        return f"the {name}"


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def joined(wire: Wire) -> Any:
    return JoinedWrites(cast(asyncio.Transport, wire), asyncio.get_running_loop())


async def test_head_and_body_leave_in_one_piece(wire: Wire, joined: JoinedWrites) -> None:
    joined.write(HEAD)
    joined.write(b"{}")
    await anyio.lowlevel.checkpoint()

    assert wire.writes == [HEAD + b"{}"]


async def test_a_head_does_not_wait_for_a_body_that_takes_its_time(wire: Wire, joined: JoinedWrites) -> None:
    joined.write(HEAD)
    await anyio.lowlevel.checkpoint()
    joined.write(b"data: 1\n\n")
    joined.write(b"data: 2\n\n")

    assert wire.writes == [HEAD, b"data: 1\n\n", b"data: 2\n\n"]


async def test_the_answer_behind_another_one_is_held_back_anew(wire: Wire, joined: JoinedWrites) -> None:
    for _ in range(2):
        joined.write(HEAD)
        joined.write(b"{}")

    assert wire.writes == [HEAD + b"{}"] * 2


async def test_an_interim_answer_leaves_at_once(wire: Wire, joined: JoinedWrites) -> None:
    joined.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    assert wire.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]


async def test_an_end_sends_the_head_first(wire: Wire, joined: JoinedWrites) -> None:
    joined.write(HEAD)
    joined.close()
    await anyio.lowlevel.checkpoint()

    assert (wire.writes, wire.is_closed) == ([HEAD], True)


async def test_everything_else_is_the_transports_own(joined: JoinedWrites) -> None:
    assert joined.get_extra_info("peername") == "the peername"
