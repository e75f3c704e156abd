"""Reading a body: whole, in pieces, too slowly, or never."""

import anyio
import pytest
from starlette.types import Message

from contracts.errors import Malformed
from gateway.body import read


async def test_a_body_in_pieces_is_one_body() -> None:
    pieces: list[Message] = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": b"b"},
    ]

    async def receive() -> Message:
        return pieces.pop(0)

    assert await read(receive) == b"ab"


async def test_a_client_that_left_is_not_waited_for() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(Malformed) as caught:
        await read(receive)
    assert caught.value.code == "incomplete_body"


async def test_a_body_that_never_comes_is_a_timeout() -> None:
    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    with pytest.raises(Malformed) as caught:
        await read(receive, timeout_s=0.01)
    assert (caught.value.code, caught.value.http_status) == ("request_timeout", 408)


async def test_being_cancelled_is_not_a_timeout() -> None:
    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.move_on_after(0.01) as scope:
        await read(receive, timeout_s=60)
    assert scope.cancelled_caught
