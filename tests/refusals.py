"""What every refusal has in common, for tests: its shape, its silence about what was sent, and nothing stored."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from infra.jetstream_api import last_seq
from tests.http_rig import Rig, code_of

MARK = "0ffending"
"""Put this into a bad value: no answer may contain it."""


async def stored(rig: Rig) -> list[int]:
    """The last sequences of ledger and directory: they move with every durable write, whatever it is."""
    return [await last_seq(rig.gateway.broker, name) for name in _streams(rig)]


@asynccontextmanager
async def nothing_stored(rig: Rig) -> AsyncIterator[None]:
    before = await stored(rig)
    yield
    assert await stored(rig) == before


@asynccontextmanager
async def nothing_told(rig: Rig) -> AsyncIterator[None]:
    """Nothing stored, and no owner is told of anything: a guard's refusal is told, every other one is not."""
    events = rig.gateway.names.events_stream
    before = await last_seq(rig.gateway.broker, events)
    async with nothing_stored(rig):
        yield
    assert await last_seq(rig.gateway.broker, events) == before


def _streams(rig: Rig) -> tuple[str, str]:
    return rig.gateway.names.ledger_stream, rig.gateway.names.directory_stream


def assert_refused(answer: httpx.Response, status: int, code: str, *, field: str | None = None) -> None:
    """Assert a problem with this code, and that it does not repeat what was sent."""
    assert (answer.status_code, code_of(answer)) == (status, code), answer.text
    problem = answer.json()
    assert problem.keys() == {"type", "title", "status", "detail", "error"}
    assert problem["type"] == "about:blank"
    assert problem["error"].get("field") == field
    assert MARK not in answer.text
