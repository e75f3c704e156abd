"""Revocations in the broker's own copy of the account: added, forgotten, and nothing else touched."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contracts.errors import Unavailable
from contracts.monitors import ACCOUNT_UNKNOWN, RevokedUser
from infra.account_revocations import LOOK_UP, AccountRevocations
from infra.broker_url import broker_url
from infra.clock import SystemClock
from infra.embedded import EmbeddedNats
from infra.nats_connection import Broker
from infra.nats_jwt import read_jwt
from infra.nats_keys import Kind, NatsKey

NOW = datetime.now(UTC)


async def account_at(nats: EmbeddedNats) -> Mapping[str, object]:
    async with Broker.open(nats.endpoint.sys_url, name="test") as broker:
        answer = await broker.request(LOOK_UP.format(account=nats.identity.account("EDGE").public))
    return read_jwt(answer.data.decode())


def user() -> RevokedUser:
    return RevokedUser(public_key=NatsKey.fresh(Kind.USER).public, revoked_at=NOW, until=NOW + timedelta(minutes=15))


async def revoked_at(nats: EmbeddedNats) -> object:
    facts = (await account_at(nats))["nats"]
    assert isinstance(facts, dict)
    return facts.get("revocations") or {}


async def test_what_others_revoked_stays_and_what_is_needed_no_more_goes(own_nats: EmbeddedNats) -> None:
    edge = own_nats.identity.account("EDGE").public
    revoker = AccountRevocations(own_nats.endpoint.sys_url, own_nats.identity.operator_signing, SystemClock())
    by_hand, first, second = user(), user(), user()
    at = int(NOW.timestamp())
    for revoked, forgotten, expected in (
        ([by_hand], [], [by_hand]),
        ([first], [], [by_hand, first]),
        ([first, second], [], [by_hand, first, second]),
        ([second], [first.public_key], [by_hand, second]),
    ):
        await revoker.enforce(edge, revoked, forgotten)
        assert await revoked_at(own_nats) == {each.public_key: at for each in expected}
    own_nats.kill()
    await own_nats.start()
    assert await revoked_at(own_nats) == {by_hand.public_key: at, second.public_key: at}


async def test_what_says_nothing_new_is_not_said(own_nats: EmbeddedNats) -> None:
    edge, known = own_nats.identity.account("EDGE").public, user()
    revoker = AccountRevocations(own_nats.endpoint.sys_url, own_nats.identity.operator_signing, SystemClock())
    await revoker.enforce(edge, [known], [])
    before = await account_at(own_nats)
    await revoker.enforce(edge, [known], ["somebody else"])
    assert await account_at(own_nats) == before


async def test_a_key_that_did_not_sign_the_account_is_not_used(own_nats: EmbeddedNats) -> None:
    """The broker would keep what it signed, and refuse the account at its next start."""
    before = await account_at(own_nats)
    for signer in (NatsKey.fresh(Kind.OPERATOR), own_nats.identity.key("operator")):
        revoker = AccountRevocations(own_nats.endpoint.sys_url, signer, SystemClock())
        with pytest.raises(Unavailable):
            await revoker.enforce(own_nats.identity.account("EDGE").public, [user()], [])
    assert await account_at(own_nats) == before


async def test_an_account_nobody_knows_is_told_as_what_may_be_tried_again(own_nats: EmbeddedNats) -> None:
    revoker = AccountRevocations(own_nats.endpoint.sys_url, own_nats.identity.operator_signing, SystemClock())
    with pytest.raises(Unavailable) as caught:
        await revoker.enforce(NatsKey.fresh(Kind.ACCOUNT).public, [user()], [])
    assert caught.value.code == ACCOUNT_UNKNOWN


async def test_a_creds_file_that_is_being_renewed_is_told_as_what_may_be_tried_again(
    own_nats: EmbeddedNats, tmp_path: Path
) -> None:
    creds, known, edge = tmp_path / "sys.creds", user(), own_nats.identity.account("EDGE").public
    creds.write_text("half written")
    url = broker_url(f"nats://127.0.0.1:{own_nats.endpoint.port}", creds=creds)
    revoker = AccountRevocations(url, own_nats.identity.operator_signing, SystemClock())
    with pytest.raises(Unavailable):
        await revoker.enforce(edge, [known], [])
    creds.write_text(own_nats.identity.creds_path("SYS").read_text())
    await revoker.enforce(edge, [known], [])
    assert await revoked_at(own_nats) == {known.public_key: int(NOW.timestamp())}
