"""Monitors' credentials: who gets them, what they open, and that they end with what they stand on."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from contracts.monitors import AGENTS_PER_MONITOR, Monitor, Revocations, monitor_key, revocations_key
from gateway.monitor_credentials import CREDENTIALS_PER_MONITOR
from gateway.ports import Write
from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.nats_jwt import read_jwt
from infra.nats_keys import Kind, NatsKey
from router.monitor_links import link_of
from tests.http_rig import Caller, Json, Rig, code_of, running_rig
from tests.minted_monitors import mint, revoking, until_closed
from tests.role_matrix import ACCOUNT_ID, back_with_account

WITHIN_S = 5.0
PATH = "/v1/monitors/credentials"


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("mac", "live", "bg", "inbox")
        yield running


@pytest.fixture
def monitor_id() -> str:
    return f"host-{uuid.uuid4().hex[:12]}"


def wish(monitor_id: str, *agents: str, **more: Any) -> Json:
    return {"monitor_id": monitor_id, "public_key": NatsKey.fresh(Kind.USER).public, "agents": list(agents)} | more


async def refusal(caller: Caller, body: Json, status: int) -> str:
    answer = await caller.call("POST", PATH, json=body)
    assert answer.status_code == status, answer.text
    return code_of(answer)


async def limited_key(rig: Rig, **limits: Any) -> Caller:
    minted = await rig.max.post("/v1/keys", limits, status=201)
    return Caller(http=rig.http, key=minted["key"], owner="max")


async def test_a_credential_opens_its_agents_pushes_and_one_subject_to_beat_on_and_nothing_else(
    rig: Rig, nats_server: NatsEndpoint, monitor_id: str
) -> None:
    mac = (await rig.max.get("/v1/agents/mac"))["id"]
    minted = await mint(nats_server, rig.max, monitor_id, "mac", mac, "mac@max")
    claims = read_jwt(minted.jwt)
    opened = [f"{channel}.{mac}.>" for channel in ("live", "bg", "inbox", "webhook")]
    assert sorted(claims["nats"]["sub"]["allow"]) == sorted(opened) == sorted(minted.view["subjects"])
    assert claims["nats"]["pub"] == {"allow": [f"hb.{monitor_id}"]}
    assert "resp" not in claims["nats"]
    assert (claims["nats"]["subs"], claims["nats"]["payload"]) == (4, 64 * 1024)
    assert claims["nats"]["allowed_connection_types"] == ["STANDARD"]
    assert (claims["sub"], claims["name"]) == (minted.key.public, f"monitor {monitor_id}")
    assert claims["nats"]["tags"] == [f"monitor:{monitor_id}", "owner:max"]
    assert claims["exp"] - claims["iat"] == 600
    assert minted.view["expires_at"] == datetime.fromtimestamp(claims["exp"], UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert minted.view["renew_after_s"] == 400
    assert await minted.is_let_in()


async def test_the_router_knows_whose_connection_it_is_by_the_credential(
    rig: Rig, nats_server: NatsEndpoint, monitor_id: str
) -> None:
    minted = await mint(nats_server, rig.max, monitor_id, "mac")
    client = {"id": 7, "acc": nats_server.identity.account("EDGE").public, "name": "monitor of-eve", "jwt": minted.jwt}
    link = link_of("server", client, nats_server.identity.account("EDGE").public)
    assert link is not None
    assert (link.monitor_id, link.is_checked) == (monitor_id, True)


async def test_a_monitor_of_many_agents_connects_although_its_credential_is_long(
    rig: Rig, nats_server: NatsEndpoint, monitor_id: str
) -> None:
    agents = [(await rig.max.agent(f"many-{number}"))["id"] for number in range(AGENTS_PER_MONITOR)]
    minted = await mint(nats_server, rig.max, monitor_id, *agents)
    assert len(minted.view["subjects"]) == 4 * AGENTS_PER_MONITOR
    assert await minted.is_let_in()
    assert await refusal(rig.max, wish(monitor_id, *agents, "mac"), 422) == "too_long"


@pytest.mark.parametrize("foreign", ["hers@eve", "absent", "agent_aaaaaaaaaaaa"])
async def test_one_agent_that_is_absent_or_somebody_elses_and_nothing_is_minted(
    rig: Rig, monitor_id: str, foreign: str
) -> None:
    await rig.eve.agent("hers")
    assert await refusal(rig.max, wish(monitor_id, "mac", foreign), 404) == "agent_not_found"
    assert await rig.gateway.parts.store.get(monitor_key(monitor_id), Monitor, fresh=True) is None


async def test_limited_keys_get_credentials_for_the_agents_they_act_for(rig: Rig, monitor_id: str) -> None:
    await rig.max.agent("other")
    await back_with_account(rig, (await rig.max.get("/v1/agents/mac"))["id"])
    for caller in (
        await limited_key(rig, agent="mac", scopes=["sessions:attach"]),
        await limited_key(rig, service_account_id=ACCOUNT_ID),
    ):
        await caller.post(PATH, wish(monitor_id, "mac"), status=201)
        assert await refusal(caller, wish(monitor_id, "mac", "other"), 404) == "agent_not_found"
    without = await limited_key(rig, scopes=["agents:manage", "messages:read"])
    assert await refusal(without, wish(monitor_id, "mac"), 403) == "insufficient_scope"


async def test_a_limited_key_is_no_monitor_that_serves_agents_beside_its_own(rig: Rig, monitor_id: str) -> None:
    await rig.max.agent("other")
    await rig.max.post(PATH, wish(monitor_id, "mac"), status=201)
    bound = await limited_key(rig, agent="other", scopes=["sessions:attach"])

    assert await refusal(bound, wish(monitor_id, "other"), 409) == "monitor_id_taken"
    await rig.max.post(PATH, wish(monitor_id, "mac"), status=201)


async def test_a_monitors_id_belongs_to_the_owner_who_used_it_first(
    rig: Rig, nats_server: NatsEndpoint, monitor_id: str
) -> None:
    minted = await mint(nats_server, rig.max, monitor_id, "mac")
    await rig.eve.agent("hers")
    assert await refusal(rig.eve, wish(monitor_id, "hers"), 409) == "monitor_id_taken"
    foreign = await rig.eve.call("DELETE", f"/v1/monitors/{monitor_id}/credentials")
    absent = await rig.eve.call("DELETE", "/v1/monitors/nobodys/credentials")
    assert foreign.status_code == absent.status_code == 404
    assert code_of(foreign) == code_of(absent) == "monitor_not_found"
    assert await minted.is_let_in()


@pytest.mark.parametrize(
    "change",
    [
        {"public_key": "U" + "A" * 55},
        {"public_key": NatsKey.fresh(Kind.ACCOUNT).public},
        {"public_key": NatsKey.fresh(Kind.USER).seed},
        {"public_key": ""},
        {"monitor_id": "no.dots"},
        {"monitor_id": ">"},
        {"monitor_id": ""},
        {"agents": []},
        {"expires_at": "2030-01-01T00:00:00Z"},
    ],
)
async def test_what_is_no_wish_is_refused_and_never_repeated(rig: Rig, monitor_id: str, change: Json) -> None:
    answer = await rig.max.call("POST", PATH, json=wish(monitor_id, "mac") | change)
    assert 400 <= answer.status_code < 500
    assert not any(isinstance(text, str) and len(text) > 20 and text in answer.text for text in change.values())


async def test_a_credential_ends_no_later_than_the_key_it_was_asked_for_with(rig: Rig, monitor_id: str) -> None:
    minted = await rig.max.post("/v1/keys", {"expires_in_s": 30}, status=201)
    short = Caller(http=rig.http, key=minted["key"], owner="max")
    view = await short.post(PATH, wish(monitor_id, "mac"), status=201)
    assert datetime.fromisoformat(view["expires_at"]) <= datetime.fromisoformat(minted["expires_at"])
    assert view["renew_after_s"] < 21


async def test_an_owner_has_so_many_monitors_and_one_without_a_credential_makes_room(
    rig: Rig, monitor_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.monitor_credentials.MONITORS_PER_OWNER", 2)
    store, names = rig.gateway.parts.store, [f"{monitor_id}-{number}" for number in range(3)]
    for name in names[:2]:
        await rig.max.post(PATH, wish(name, "mac"), status=201)
    assert await refusal(rig.max, wish(names[2], "mac"), 409) == "too_many_monitors"
    silent = await store.get(monitor_key(names[1]), Monitor, fresh=True)
    assert silent is not None
    write = Write(key=monitor_key(names[1]), record=replace(silent.record, credentials=()), expected_seq=silent.seq)
    await store.transact([write])
    await rig.max.post(PATH, wish(names[2], "mac"), status=201)
    left = [await store.get(monitor_key(name), Monitor, fresh=True) is not None for name in names]
    assert left == [True, False, True]


async def test_a_monitor_has_so_many_credentials_and_no_more(rig: Rig, monitor_id: str) -> None:
    for _ in range(CREDENTIALS_PER_MONITOR):
        await rig.max.post(PATH, wish(monitor_id, "mac"), status=201)
    assert await refusal(rig.max, wish(monitor_id, "mac"), 429) == "too_many_credentials"


async def test_without_a_signing_key_there_are_no_credentials(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    async with running_rig(nats_server, redis_server, prefix, nats_edge_signing_key=None) as rig:
        await rig.max.agent("mac")
        assert await refusal(rig.max, wish("host", "mac"), 404) == "credentials_not_available"


# --- revoked -------------------------------------------------------------------------------------------------------


async def end_key(rig: Rig, asker: Caller, _: str) -> None:
    await rig.max.delete(f"/v1/keys/{asker.key_id}", status=204)


async def rotate_key(rig: Rig, asker: Caller, _: str) -> None:
    await rig.max.post(f"/v1/keys/{asker.key_id}/rotate", {"overlap_s": 1}, status=201)


async def delete_agent(rig: Rig, _: Caller, __: str) -> None:
    await rig.max.call("DELETE", "/v1/agents/mac")


async def withdraw(rig: Rig, _: Caller, monitor_id: str) -> None:
    await rig.max.delete(f"/v1/monitors/{monitor_id}/credentials", status=204)


@pytest.mark.parametrize("end", [end_key, rotate_key, delete_agent, withdraw])
async def test_what_it_stands_on_ends_and_within_seconds_so_does_the_connection(
    rig: Rig, nats_server: NatsEndpoint, monitor_id: str, end: Any
) -> None:
    asker = await limited_key(rig, name="of the monitor")
    async with revoking(rig, nats_server):
        minted = await mint(nats_server, asker, monitor_id, "mac")
        other = await mint(nats_server, rig.max, f"{monitor_id}-2", (await rig.max.agent("other"))["id"])
        async with minted.connected() as client, other.connected() as bystander:
            await end(rig, asker, monitor_id)
            await until_closed(client, within_s=WITHIN_S)
            assert bystander.is_connected
        assert not await minted.is_let_in()
        assert await other.is_let_in()


async def test_a_disabled_service_account_takes_its_monitors_credentials_with_it(
    rig: Rig, nats_server: NatsEndpoint, monitor_id: str
) -> None:
    await back_with_account(rig, (await rig.max.get("/v1/agents/mac"))["id"])
    worker = await limited_key(rig, service_account_id=ACCOUNT_ID)
    async with revoking(rig, nats_server):
        minted = await mint(nats_server, worker, monitor_id, "mac")
        async with minted.connected() as client:
            path = f"/v1/projects/max/service-accounts/{ACCOUNT_ID}"
            await rig.max.patch(path, {"status": "disabled"})
            await until_closed(client, within_s=WITHIN_S)


async def test_what_was_revoked_while_no_router_ran_is_when_one_starts(
    rig: Rig, nats_server: NatsEndpoint, monitor_id: str
) -> None:
    minted = await mint(nats_server, rig.max, monitor_id, "mac")
    async with minted.connected() as client:
        await rig.max.delete(f"/v1/monitors/{monitor_id}/credentials", status=204)
        assert client.is_connected
        async with revoking(rig, nats_server), revoking(rig, nats_server):
            await until_closed(client, within_s=WITHIN_S)


async def test_routers_that_revoke_at_once_lose_none_of_it(
    rig: Rig, nats_server: NatsEndpoint, monitor_id: str
) -> None:
    async with revoking(rig, nats_server), revoking(rig, nats_server), revoking(rig, nats_server):
        minted = [await mint(nats_server, rig.max, f"{monitor_id}-{number}", "mac") for number in range(6)]
        async with anyio.create_task_group() as tasks:
            for each in minted:
                tasks.start_soon(withdraw, rig, rig.max, each.monitor_id)
        with anyio.fail_after(WITHIN_S):
            for each in minted:
                while await each.is_let_in():
                    await anyio.sleep(0.05)
    account = nats_server.identity.account("EDGE").public
    known = await rig.gateway.parts.store.get(revocations_key(account), Revocations, fresh=True)
    assert known is not None
    assert {each.public_key for each in known.record.users} == {each.key.public for each in minted}


async def test_a_withdrawn_key_gets_no_other_credential_and_a_fresh_one_does(
    rig: Rig, nats_server: NatsEndpoint, monitor_id: str
) -> None:
    async with revoking(rig, nats_server):
        minted = await mint(nats_server, rig.max, monitor_id, "mac")
        await withdraw(rig, rig.max, monitor_id)
        again = wish(monitor_id, "mac", public_key=minted.key.public)
        assert await refusal(rig.max, again, 409) == "credentials_withdrawn"
        assert await (await mint(nats_server, rig.max, monitor_id, "mac")).is_let_in()
