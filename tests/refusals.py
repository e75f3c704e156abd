"""What every refusal has in common, for tests: its shape, its silence about what was sent, and nothing stored."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from infra.jetstream_api import last_seq
from tests.http_rig import Rig, code_of

MARK = "0ffending"
"""Put this into a bad value: no answer may contain it."""


async def stored(rig: Rig) -> tuple[int, int]:
    """The last sequences of ledger and directory: they move with every durable write, whatever it is."""
    names = rig.gateway.names
    return await last_seq(rig.gateway.broker, names.ledger_stream), await last_seq(
        rig.gateway.broker, names.directory_stream
    )


@asynccontextmanager
async def nothing_stored(rig: Rig) -> AsyncIterator[None]:
    before = await stored(rig)
    yield
    assert await stored(rig) == before


def assert_refused(answer: httpx.Response, status: int, code: str, *, field: str | None = None) -> None:
    """Assert a problem with this code, and that it does not repeat what was sent."""
    assert (answer.status_code, code_of(answer)) == (status, code), answer.text
    problem = answer.json()
    assert problem.keys() == {"type", "title", "status", "detail", "error"}
    assert problem["type"] == "about:blank"
    assert problem["error"].get("field") == field
    assert MARK not in answer.text
