"""Revoked users of an account, told to the broker: its JWT signed anew, and handed to one server, which tells all.

What the broker has is looked up first, so that whatever else was changed there stays, and nothing is sent that says
nothing new. Every server closes the connections of the revoked by itself.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import structlog

from contracts.clock import Clock
from contracts.errors import Unavailable
from contracts.monitors import ACCOUNT_UNKNOWN, RevokedUser
from infra.broker_url import BadBrokerUrl
from infra.nats_connection import Broker
from infra.nats_jwt import BadCredential, read_jwt, revoking
from infra.nats_keys import NatsKey

log = structlog.get_logger(__name__)

LOOK_UP: Final = "$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP"
UPDATE: Final = "$SYS.REQ.CLAIMS.UPDATE"
OK: Final = 200


class AccountRevocations:
    """Implements `router.ports.Revoker`. `signer` is the operator's signing key."""

    def __init__(self, sys_url: str, signer: NatsKey, clock: Clock) -> None:
        self._sys_url = sys_url
        self._signer = signer
        self._clock = clock

    async def enforce(self, account: str, revoked: Sequence[RevokedUser], forgotten: Collection[str]) -> None:
        try:
            await self._enforce(account, revoked, forgotten)
        except BadBrokerUrl as error:
            # It could be used at our start: a file that is being renewed may be half there.
            raise Unavailable("broker_login_unreadable", str(error)) from None

    async def _enforce(self, account: str, revoked: Sequence[RevokedUser], forgotten: Collection[str]) -> None:
        async with Broker.open(self._sys_url, name="postroom-router-revocations") as broker:
            jwt = (await broker.request(LOOK_UP.format(account=account))).data.decode()
            wanted = {each.public_key: each.revoked_at for each in revoked}
            told = self._revocations(jwt)
            missing = {user: at for user, at in wanted.items() if told.get(user, 0) < int(at.timestamp())}
            needless = [user for user in forgotten if user in told and user not in wanted]
            if missing or needless:
                await self._update(broker, jwt, missing, needless)

    def _revocations(self, jwt: str) -> Mapping[str, int]:
        try:
            claims: Mapping[str, Any] = read_jwt(jwt)
        except BadCredential:
            raise Unavailable(ACCOUNT_UNKNOWN, "the broker did not say what it knows of the account") from None
        if claims["iss"] != self._signer.public:
            # The broker would keep what another key signed, and refuse the whole account at its next start.
            raise Unavailable("signing_key_foreign", "the account was signed by another key than the one we were given")
        return claims["nats"].get("revocations") or {}

    async def _update(
        self, broker: Broker, jwt: str, missing: Mapping[str, datetime], needless: Collection[str]
    ) -> None:
        signed = revoking(jwt, self._signer, missing, self._clock.now(), forgotten=needless)
        answer = json.loads((await broker.request(UPDATE, signed.encode())).data)
        if answer.get("data", {}).get("code") != OK:
            raise Unavailable("revocation_refused", "the broker did not take the account with its revocations")
        log.info("account_revised", revoked=len(missing), forgotten=len(needless))
