"""API keys are minted, listed and revoked. A key's text leaves the server once, in the answer that minted it."""

from dataclasses import replace

from contracts.clock import Clock, Ids
from contracts.directory import api_key_key
from contracts.errors import NotFound
from contracts.records import ApiKey, Principal
from gateway.auth import Authenticator, authorize, require
from gateway.directory import decided, key_writes, owner_writes
from gateway.keys import KEY_BYTES, KEY_ID, KeyText, new_key
from gateway.ports import DirectoryStore, Write
from gateway.problems import unauthenticated
from gateway.schemas_agents import NewKey


class ApiKeys:
    """Changes of keys."""

    def __init__(self, *, store: DirectoryStore, authenticator: Authenticator, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._authenticator = authenticator
        self._clock = clock
        self._ids = ids

    async def mint(self, wanted: NewKey, principal: Principal) -> tuple[ApiKey, str]:
        """Make a key; returns its record and its text. Raises `Forbidden` where an admin key is needed."""
        owner = wanted.owner or principal.owner
        if owner != principal.owner:
            require(principal, "key.mint_foreign", owner)
        if wanted.admin:
            require(principal, "key.mint_admin", owner)
        key = new_key(self._ids.secret(KEY_BYTES))
        record = ApiKey(
            key_id=key.key_id,
            owner=owner,
            secret_sha256=key.secret_sha256,
            created_at=self._clock.now(),
            name=wanted.name,
            admin=wanted.admin,
        )
        await decided(lambda: self._store_new(record))
        return record, key.text

    async def visible(self, principal: Principal) -> list[ApiKey]:
        """The keys that count now: the caller's own, or everybody's for an admin key; oldest first."""
        pattern = "keys.*.*" if principal.admin else f"keys.{principal.owner}.*"
        key_ids = [entry.rpartition(".")[2] for entry in await self._store.keys(pattern)]
        found = [await self._store.get(api_key_key(key_id), ApiKey) for key_id in key_ids]
        keys = [each.record for each in found if each and each.record.revoked_at is None]
        shown = [key for key in keys if authorize(principal, "key.read", key.owner)]
        return sorted(shown, key=lambda key: (key.created_at, key.key_id))

    async def revoke(self, key_id: str, principal: Principal) -> ApiKey:
        """Revoke a key: at once in this process, within five seconds everywhere. Revoking again is the same."""
        if not KEY_ID.match(key_id):
            raise _no_key()
        revoked = await decided(lambda: self._revoke(key_id, principal))
        self._authenticator.forget(key_id)
        return revoked

    async def renew(self, principal: Principal) -> tuple[ApiKey, ApiKey, str]:
        """Make a key in place of the caller's, in one step; returns the old record, the new one and its text."""
        key = new_key(self._ids.secret(KEY_BYTES))
        gone, record = await decided(lambda: self._renew(key, principal.key_id))
        self._authenticator.forget(principal.key_id)
        return gone, record, key.text

    async def _renew(self, key: KeyText, old_id: str) -> tuple[ApiKey, ApiKey]:
        found = await self._store.get(api_key_key(old_id), ApiKey, fresh=True)
        if found is None or found.record.revoked_at is not None:
            raise unauthenticated()
        now = self._clock.now()
        new = replace(found.record, key_id=key.key_id, secret_sha256=key.secret_sha256, created_at=now)
        gone = replace(found.record, revoked_at=now)
        removal = Write(key=api_key_key(old_id), record=gone, expected_seq=found.seq)
        await self._store.transact([*key_writes(new), removal])
        return gone, new

    async def _store_new(self, record: ApiKey) -> None:
        await self._store.transact([*await owner_writes(self._store, record.owner, self._clock), *key_writes(record)])

    async def _revoke(self, key_id: str, principal: Principal) -> ApiKey:
        found = await self._store.get(api_key_key(key_id), ApiKey, fresh=True)
        if found is None or not authorize(principal, "key.revoke", found.record.owner):
            raise _no_key()
        if found.record.revoked_at is not None:
            return found.record
        gone = replace(found.record, revoked_at=self._clock.now())
        await self._store.transact([Write(key=api_key_key(key_id), record=gone, expected_seq=found.seq)])
        return gone


def _no_key() -> NotFound:
    return NotFound("key_not_found", "There is no such key.")
