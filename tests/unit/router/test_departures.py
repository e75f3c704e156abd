"""Monitors that leave: ended when their last connection is gone for a moment, and not when it was renewed."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from prometheus_client import CollectorRegistry

from contracts.errors import Unavailable
from router.departures import Departures
from router.ports import HeldSessions


class Notes:
    """Ends monitors, after as many failures as it is told."""

    def __init__(self, steps: list[str], failures: int = 0) -> None:
        self.steps = steps
        self.failures = failures

    async def note(self, seen: Mapping[str, int], held: Iterable[HeldSessions]) -> None:
        raise AssertionError("departures note no beats")

    async def end(self, monitor_id: str) -> Sequence[str]:
        if self.failures:
            self.failures -= 1
            raise Unavailable("store_unavailable", "away")
        self.steps.append(f"end {monitor_id}")
        return ["sess_1"]


class Rig:
    """What happened, in order, in `steps`."""

    def __init__(self, failures: int = 0) -> None:
        self.steps: list[str] = []
        self.ended = anyio.Event()
        self.departures = Departures(
            account="EDGE",
            notes=Notes(self.steps, failures),
            flush=self._flush,
            look_at=self._look_at,
            registry=CollectorRegistry(),
            grace_s=0.05,
            back_after_s=0.05,
        )

    async def _flush(self) -> None:
        self.steps.append("flush")

    async def _look_at(self, session_ids: Sequence[str]) -> None:
        self.steps.append(f"look {' '.join(session_ids)}")
        self.ended.set()

    def known(self, *clients: dict[str, Any]) -> None:
        self.departures.asked()
        self.departures.present([("S1", each) for each in clients])


def client(client_id: int, monitor_id: str = "mac-1") -> dict[str, Any]:
    return {"id": client_id, "acc": "EDGE", "user": "edge", "name": f"monitor {monitor_id}"}


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.departures.run)
        with anyio.fail_after(5):
            yield rig
        tasks.cancel_scope.cancel()


async def test_a_monitor_that_is_gone_for_the_grace_is_ended_after_what_it_said_was_noted() -> None:
    async with running(Rig()) as rig:
        rig.known(client(1))
        rig.departures.closed("S1", client(1), "Client Closed")
        await rig.ended.wait()
    assert rig.steps == ["flush", "end mac-1", "look sess_1"]


async def test_a_renewed_connection_ends_nobody() -> None:
    async with running(Rig()) as rig:
        rig.known(client(1), client(9, "mac-2"))
        rig.departures.closed("S1", client(1), "Authentication Expired")
        rig.departures.opened("S2", client(1))
        rig.departures.closed("S1", client(9, "mac-2"), "Client Closed")
        await rig.ended.wait()
    assert rig.steps == ["flush", "end mac-2", "look sess_1"]


async def test_a_broker_that_goes_away_ends_nobody() -> None:
    async with running(Rig()) as rig:
        rig.known(client(1), client(2, "mac-2"))
        rig.departures.closed("S1", client(1), "Client Closed")
        rig.departures.lost()
        rig.departures.closed("S1", client(2, "mac-2"), "Client Closed")
        rig.known(client(3, "mac-3"))
        rig.departures.closed("S1", client(3, "mac-3"), "Client Closed")
        await rig.ended.wait()
    assert rig.steps == ["flush", "end mac-3", "look sess_1"]


async def test_a_departure_is_noted_again_until_the_store_takes_it() -> None:
    async with running(Rig(failures=1)) as rig:
        rig.known(client(1))
        rig.departures.closed("S1", client(1), "Client Closed")
        await rig.ended.wait()
    assert rig.steps == ["flush", "flush", "end mac-1", "look sess_1"]


async def test_connections_of_others_are_nothing_to_it() -> None:
    async with running(Rig()) as rig:
        rig.known(client(1))
        rig.departures.closed("S1", client(5) | {"acc": "CORE", "user": "core"}, "Client Closed")
        rig.departures.opened("S1", {"id": 6})
        rig.departures.closed("S1", client(1), "Client Closed")
        await rig.ended.wait()
    assert rig.steps == ["flush", "end mac-1", "look sess_1"]


async def test_a_monitor_that_comes_back_has_its_sessions_looked_at_again() -> None:
    async with running(Rig()) as rig:
        rig.known(client(1))
        rig.departures.closed("S1", client(1), "Stale Connection")
        await rig.ended.wait()
        rig.ended = anyio.Event()
        rig.departures.opened("S1", client(2))
        await rig.ended.wait()
    assert rig.steps == ["flush", "end mac-1", "look sess_1", "look sess_1"]
