"""Callers with a token of the OpenID provider: known by what it says, and their owner made to exist as keys do.

A name that somebody registered by e-mail is theirs, whatever a token says: two who trust each other in nothing would
otherwise meet in one namespace, each with a right to it.
"""

from contracts.clock import Clock
from contracts.directory import Owner, owner_key
from gateway.directory import decided, owner_writes
from gateway.oidc import TokenBearer, TokenRules, read_token
from gateway.ports import DirectoryStore, TokenKeys


class TokenBearers:
    """Implements `gateway.auth.Tokens`."""

    def __init__(self, *, rules: TokenRules, keys: TokenKeys, store: DirectoryStore, clock: Clock) -> None:
        self._rules = rules
        self._keys = keys
        self._store = store
        self._clock = clock

    async def bearer(self, text: str) -> TokenBearer | None:
        """Whom this token speaks for; None for every token that does not count."""
        found = read_token(text, self._rules, self._keys, self._clock.now())
        if found is None:
            return None
        owner = found.principal.owner
        if await self._store.get(owner_key(owner), Owner) is None:
            await decided(lambda: self._make_owner(owner))
        known = await self._store.get(owner_key(owner), Owner)
        return found if known is not None and known.record.email is None else None

    async def _make_owner(self, owner: str) -> None:
        if writes := await owner_writes(self._store, owner, self._clock):
            await self._store.transact(writes)
