"""Monitors' connections as the broker tells of them: whose they are, when the last is gone, and no death by restart."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog.testing
from nats.aio.client import Client
from prometheus_client import CollectorRegistry

from contracts.monitors import AGENTS_PER_MONITOR
from contracts.subjects import pushes_of
from contracts.words import Channel
from infra.broker_url import broker_url
from infra.connection_advisories import PAGE, follow_connections
from infra.embedded import EmbeddedNats
from infra.nats_client import login
from infra.nats_jwt import User, creds_text, read_creds, user_jwt
from infra.nats_keys import Kind, NatsKey
from router.departures import Departures
from router.ports import HeldSessions
from tests.raw_broker import raw_client

DEADLINE_S = 20


class Notes:
    """Which monitors ended, in order."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def note(self, seen: Mapping[str, int], held: Iterable[HeldSessions]) -> None:
        raise AssertionError("nobody beats here")

    async def end(self, monitor_id: str) -> Sequence[str]:
        self.ended.append(monitor_id)
        return []

    async def until(self, *monitor_ids: str) -> None:
        with anyio.fail_after(DEADLINE_S):
            while self.ended != list(monitor_ids):
                await anyio.sleep(0.02)


class Told(Departures):
    """Says when it knows what is open."""

    known: anyio.Event

    def lost(self) -> None:
        self.known = anyio.Event()
        super().lost()

    def present(self, clients: Iterable[tuple[str, Mapping[str, object]]]) -> None:
        super().present(clients)
        self.known.set()


@asynccontextmanager
async def router(
    nats: EmbeddedNats, every_s: float = 60, sys_url: str | None = None
) -> AsyncIterator[tuple[Notes, Told]]:
    sys_url = sys_url or nats.endpoint.sys_url
    notes = Notes()

    async def nothing(*_: object) -> None:
        return

    departures = Told(account="EDGE", notes=notes, flush=nothing, look_at=nothing, registry=CollectorRegistry())
    departures.known = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(departures.run)
        tasks.start_soon(lambda: follow_connections(sys_url, departures, every_s=every_s))
        with anyio.fail_after(DEADLINE_S):
            while not departures.known.is_set():
                await anyio.sleep(0.02)
        yield notes, departures
        tasks.cancel_scope.cancel()


async def monitor(nats: EmbeddedNats, monitor_id: str) -> Client:
    """A monitor as it is developed: the EDGE user, known by its connection's name."""
    return await raw_client(nats.endpoint.edge_url, name=f"monitor {monitor_id}", allow_reconnect=False)


async def minted(
    nats: EmbeddedNats, monitor_id: str, name: str = "", *, life_s: float = 300, agents: int = 1
) -> Client:
    """A monitor with credentials of its own."""
    account, key = nats.identity.account("EDGE"), NatsKey.fresh(Kind.USER)
    now = datetime.now(UTC)
    user = User(
        public=key.public,
        name="",
        account=account.public,
        subscribe=[pushes_of(channel, f"agent_{number:012d}") for number in range(agents) for channel in Channel],
        publish=(f"hb.{monitor_id}",),
        expires_at=now + timedelta(seconds=life_s),
    )
    creds = read_creds(creds_text(user_jwt(account.signing, user, now), key))
    client = Client()
    await client.connect(
        f"nats://127.0.0.1:{nats.endpoint.port}", name=name, allow_reconnect=False, **login(creds, None)
    )
    return client


async def test_a_monitor_is_gone_when_its_last_connection_is(own_nats: EmbeddedNats) -> None:
    async with router(own_nats) as (notes, _):
        one, two, other = [await monitor(own_nats, name) for name in ("mac-1", "mac-1", "mac-2")]
        await one.close()
        await other.close()
        await notes.until("mac-2")
        await two.close()
        await notes.until("mac-2", "mac-1")


async def test_a_minted_user_is_the_monitor_its_credentials_say_whatever_it_calls_itself(
    own_nats: EmbeddedNats,
) -> None:
    async with router(own_nats) as (notes, _):
        real, liar, renewed = (
            await minted(own_nats, "mac-1"),
            await minted(own_nats, "mac-2", "monitor mac-1"),
            await minted(own_nats, "mac-1"),
        )
        await real.close()
        await liar.close()
        await notes.until("mac-2")
        await renewed.close()
        await notes.until("mac-2", "mac-1")


async def test_connections_from_before_the_router_came_count(own_nats: EmbeddedNats) -> None:
    # More than one page of them.
    many = [await monitor(own_nats, f"m-{number}") for number in range(300)]
    twin = await monitor(own_nats, "m-0")
    async with router(own_nats) as (notes, _):
        await many[0].close()
        await many[299].close()
        await notes.until("m-299")
        await twin.close()
        await notes.until("m-299", "m-0")
    for client in many:
        await client.close()


async def test_a_monitor_whose_credential_ran_out_is_not_taken_for_dead(own_nats: EmbeddedNats) -> None:
    async with router(own_nats) as (notes, departures):
        expired = anyio.Event()
        told = departures.closed

        def closed(server_id: str, client: Mapping[str, object], reason: str) -> None:
            told(server_id, client, reason)
            if reason == "Authentication Expired":
                expired.set()

        departures.closed = closed  # type: ignore[method-assign]
        await minted(own_nats, "alive", life_s=2)
        with anyio.fail_after(DEADLINE_S):
            await expired.wait()
        later = await minted(own_nats, "dead")
        await later.close()
        await notes.until("dead")


async def test_what_the_broker_answers_in_one_piece_is_bounded_however_many_agents_monitors_serve(
    own_nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [await minted(own_nats, f"m-{number}", agents=AGENTS_PER_MONITOR) for number in range(PAGE * 2 + 2)]
    sizes: list[int] = []
    read = json.loads

    def measured(data: bytes) -> Any:
        sizes.append(len(data))
        return read(data)

    monkeypatch.setattr("infra.connection_advisories.json.loads", measured)
    async with router(own_nats) as (notes, _):
        assert 0 < max(sizes) < 4 * 1024 * 1024
        await clients[-1].close()
        await notes.until(f"m-{PAGE * 2 + 1}")
    for client in clients:
        await client.close()


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_broker_that_restarts_ends_nobody(own_nats: EmbeddedNats, how: str) -> None:
    async with router(own_nats) as (notes, departures):
        await monitor(own_nats, "mac-1")
        await minted(own_nats, "mac-2")
        if how == "kill":
            own_nats.kill()
        else:
            await own_nats.stop()
        await own_nats.start()
        late = await monitor(own_nats, "mac-3")
        with anyio.fail_after(DEADLINE_S):
            await departures.known.wait()
        await late.close()
        await notes.until("mac-3")


async def test_a_creds_file_that_is_being_renewed_is_read_again(own_nats: EmbeddedNats, tmp_path: Path) -> None:
    creds = tmp_path / "sys.creds"
    creds.write_text("half written")

    async def mend() -> None:
        with anyio.fail_after(DEADLINE_S):
            while not any(entry["event"] == "connections_unknown" for entry in logs):
                await anyio.sleep(0.02)
        creds.write_text(own_nats.identity.creds_path("SYS").read_text())

    url = broker_url(f"nats://127.0.0.1:{own_nats.endpoint.port}", creds=creds)
    with structlog.testing.capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mend)
            async with router(own_nats, sys_url=url) as (notes, _):
                await (await monitor(own_nats, "mac-1")).close()
                await notes.until("mac-1")


async def test_all_connections_are_asked_for_now_and_then(own_nats: EmbeddedNats) -> None:
    client = await monitor(own_nats, "mac-1")
    async with router(own_nats, every_s=0.05) as (notes, departures):
        for _ in range(3):
            departures.known = anyio.Event()
            with anyio.fail_after(DEADLINE_S):
                await departures.known.wait()
        assert notes.ended == []
        await client.close()
        await notes.until("mac-1")
