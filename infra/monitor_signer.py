"""Monitors' credentials, signed: the gateway's terms as a user's JWT of the account monitors are in."""

from typing import Final

from contracts.heartbeats import connection_name
from gateway.ports import CredentialTerms
from infra.nats_identity import AccountSigner
from infra.nats_jwt import User, user_jwt
from infra.nats_keys import BadKey, Kind, require_public

PAYLOAD_BYTES: Final = 64 * 1024


class MonitorJwts:
    """Implements `gateway.ports.MonitorSigner`."""

    def __init__(self, signer: AccountSigner) -> None:
        self._signer = signer

    @property
    def account(self) -> str:
        return self._signer.account

    def is_user_key(self, text: str) -> bool:
        try:
            require_public(text, Kind.USER)
        except BadKey:
            return False
        return True

    def sign(self, terms: CredentialTerms) -> str:
        user = User(
            public=terms.public_key,
            name=connection_name(terms.monitor_id),
            account=self._signer.account,
            subscribe=terms.subscribe,
            publish=terms.publish,
            subscriptions=len(terms.subscribe),
            payload_bytes=PAYLOAD_BYTES,
            expires_at=terms.expires_at,
            tags=(f"monitor:{terms.monitor_id}", f"owner:{terms.owner}"),
        )
        return user_jwt(self._signer.key, user, terms.issued_at)
