"""What a new key is limited to, and what whoever makes it has to hold: nobody grants what he lacks. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from contracts.errors import Forbidden
from contracts.records import ApiKey, Principal
from contracts.words import Scope
from gateway.scopes import SCOPE_OF, SELF_ACTIONS

SELF_SCOPES: Final = frozenset(SCOPE_OF[action] for action in SELF_ACTIONS)
"""What a service account's key can do without any scope, as scopes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """See `contracts.records.ApiKey`."""

    scopes: frozenset[Scope] | None = None
    agent_id: str | None = None
    service_account_id: str | None = None
    expires_at: datetime | None = None

    @property
    def stored_scopes(self) -> tuple[Scope, ...] | None:
        """In the order of the words, so that equal limits are stored alike."""
        return None if self.scopes is None else tuple(scope for scope in Scope if scope in self.scopes)


def limits_of(key: ApiKey) -> KeyLimits:
    return KeyLimits(
        scopes=None if key.scopes is None else frozenset(key.scopes),
        agent_id=key.agent_id,
        service_account_id=key.service_account_id,
        expires_at=key.expires_at,
    )


def refuse_more(maker: Principal, limits: KeyLimits) -> None:
    """Raise `Forbidden` (`scope_not_held`) where the new key could do what its maker cannot."""
    if maker.admin or (maker.scopes is None and not maker.is_confined):
        return
    granted = frozenset(Scope) if limits.scopes is None else limits.scopes
    if limits.service_account_id not in (None, maker.service_account_id):
        granted |= SELF_SCOPES
    missing = granted - (maker.scopes or frozenset())
    # Without scopes a key may also what has none, which no sum of them allows.
    if missing or limits.scopes is None:
        names = [scope.value for scope in Scope if scope in missing]
        raise Forbidden("scope_not_held", "A key grants no scope that it does not hold itself.", scopes=names)


def refuse_outliving(maker: Principal, expires_at: datetime | None) -> None:
    """Raise `Forbidden` (`expiry_exceeds_own`) for a key that is to count longer than what its maker calls with."""
    if maker.expires_at is None:
        return
    if expires_at is None or expires_at > maker.expires_at:
        raise Forbidden(
            "expiry_exceeds_own", "A key or token that ends makes no key that ends later.", field="expires_at"
        )
