"""API keys are minted, rotated, listed and revoked. A key's text leaves the server once, in the answer that made it."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from contracts.clock import Clock, Ids
from contracts.directory import KeyEntry, account_key, api_key_key, key_entry_key
from contracts.errors import Conflict, Invalid, NotFound
from contracts.ids import ACCOUNT_ID
from contracts.records import ApiKey, Principal, ServiceAccount
from gateway.auth import Authenticator, authorize, require
from gateway.directory import Directory, decided, key_writes, owner_writes
from gateway.key_limits import KeyLimits, limits_of, refuse_more, refuse_outliving
from gateway.keys import KEY_BYTES, KEY_ID, KeyText, new_key
from gateway.ports import DirectoryStore, Versioned, Write
from gateway.problems import agent_not_found, unauthenticated
from gateway.schemas_keys import NewKey
from gateway.scopes import scopes_named
from gateway.service_accounts import find_account, held

MAX_PER_OWNER: Final = 1_000


class ApiKeys:
    """Changes of keys."""

    def __init__(self, *, store: DirectoryStore, authenticator: Authenticator, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._directory = Directory(store)
        self._authenticator = authenticator
        self._clock = clock
        self._ids = ids

    async def mint(self, wanted: NewKey, principal: Principal) -> tuple[ApiKey, str]:
        """Make a key; returns its record and its text. Raises `Forbidden` for more than the caller may himself."""
        owner = wanted.owner or principal.owner
        if owner != principal.owner:
            require(principal, "key.mint_foreign", owner)
        if wanted.admin:
            require(principal, "key.mint_admin", owner)
        limits = await self._limits(wanted, owner, principal)
        refuse_more(principal, limits)
        refuse_outliving(principal, limits.expires_at)
        key = self._new()
        record = ApiKey(
            key_id=key.key_id,
            owner=owner,
            secret_sha256=key.secret_sha256,
            created_at=self._clock.now(),
            name=wanted.name,
            admin=wanted.admin,
            scopes=limits.stored_scopes,
            agent_id=limits.agent_id,
            service_account_id=limits.service_account_id,
            expires_at=limits.expires_at,
        )
        await decided(lambda: self._store_new(record))
        return record, key.text

    async def visible(self, principal: Principal) -> list[ApiKey]:
        """The keys that count now: the caller's own, or everybody's for an admin key; oldest first."""
        return await self._of("*" if principal.admin else principal.owner)

    async def find(self, key_id: str, principal: Principal) -> ApiKey:
        """A key that counts now. Raises the same `NotFound` for every other, and for somebody else's."""
        key = (await self._found(key_id, principal, "key.read")).record
        if not _counts(key, self._clock.now()):
            raise _no_key()
        return key

    async def rotate(self, key_id: str, overlap_s: int, principal: Principal) -> tuple[ApiKey, ApiKey, str]:
        """A successor with the same limits beside a key, which counts for `overlap_s` more at most.

        Returns the record before, the successor's and its text. Raises `Conflict` (`key_ended`).
        """
        key = self._new()
        before, record = await decided(lambda: self._rotate(key_id, key, overlap_s, principal))
        self._authenticator.forget(key_id)
        return before, record, key.text

    async def revoke(self, key_id: str, principal: Principal) -> ApiKey:
        """Revoke a key: at once in this process, within five seconds everywhere. Revoking again is the same.

        Raises `Forbidden` (`admin_key_required`) for an admin key: whoever has one is not locked out by one without.
        """
        revoked = await decided(lambda: self._revoke(key_id, principal))
        self._authenticator.forget(key_id)
        return revoked

    async def renew(self, principal: Principal) -> tuple[ApiKey, ApiKey, str]:
        """Make a key in place of the caller's, in one step; returns the old record, the new one and its text."""
        key = self._new()
        gone, record = await decided(lambda: self._renew(key, principal.key_id))
        self._authenticator.forget(principal.key_id)
        return gone, record, key.text

    # --- what is wanted --------------------------------------------------------------------------------------------

    def _new(self) -> KeyText:
        return new_key(self._ids.secret(KEY_BYTES))

    async def _limits(self, wanted: NewKey, owner: str, principal: Principal) -> KeyLimits:
        scopes = None if wanted.scopes is None else scopes_named(wanted.scopes)
        if wanted.service_account_id is not None:
            await self._require_account(wanted.service_account_id, owner)
            scopes = scopes or frozenset()
        return KeyLimits(
            scopes=scopes,
            agent_id=None if wanted.agent is None else await self._agent_id(wanted.agent, owner, principal),
            service_account_id=wanted.service_account_id,
            expires_at=_end_of(wanted, self._clock.now()),
        )

    async def _agent_id(self, reference: str, owner: str, principal: Principal) -> str:
        agent = await self._directory.find(reference, principal, action="key.mint", field="agent")
        if agent.owner != owner:
            raise agent_not_found()
        return agent.id

    async def _require_account(self, account_id: str, owner: str) -> None:
        found = None
        if ACCOUNT_ID.match(account_id):
            found = await self._store.get(account_key(account_id), ServiceAccount, fresh=True)
        if found is None or found.record.owner != owner:
            message = "There is no such service account."
            raise NotFound("service_account_not_found", message, field="service_account_id")

    # --- the steps of a change -------------------------------------------------------------------------------------

    async def _store_new(self, record: ApiKey) -> None:
        await self._refuse_too_many(record.owner)
        writes = [*await owner_writes(self._store, record.owner, self._clock), *key_writes(record)]
        if record.service_account_id is not None:
            writes.append(held(await find_account(self._store, record.owner, record.service_account_id)))
        await self._store.transact(writes)

    async def _refuse_too_many(self, owner: str) -> None:
        """Keys that ended are looked for, and no longer listed, only where there seem to be too many."""
        listed = await self._store.keys(key_entry_key(owner, "*"))
        if len(listed) < MAX_PER_OWNER:
            return
        counting = {key.key_id for key in await self._of(owner)}
        if len(counting) >= MAX_PER_OWNER:
            raise Conflict("too_many_keys", f"An owner may have {MAX_PER_OWNER} keys: revoke one.", limit=MAX_PER_OWNER)
        ended = [entry.rpartition(".")[2] for entry in listed]
        for key_id in [each for each in ended if each not in counting]:
            await self._store.transact(await self._removals(owner, key_id))

    async def _rotate(self, key_id: str, key: KeyText, overlap_s: int, principal: Principal) -> tuple[ApiKey, ApiKey]:
        found = await self._found(key_id, principal, "key.rotate")
        before, now = found.record, self._clock.now()
        if not _counts(before, now):
            raise Conflict("key_ended", "This key does not count any more: mint another one.")
        if before.admin:
            require(principal, "key.mint_admin", before.owner)
        refuse_more(principal, limits_of(before))
        refuse_outliving(principal, before.expires_at)
        until = now + timedelta(seconds=overlap_s)
        after = replace(before, expires_at=min(until, before.expires_at or until))
        new = replace(before, key_id=key.key_id, secret_sha256=key.secret_sha256, created_at=now)
        await self._refuse_too_many(new.owner)
        change = Write(key=api_key_key(key_id), record=after, expected_seq=found.seq)
        await self._store.transact([*key_writes(new), change])
        return after, new

    async def _renew(self, key: KeyText, old_id: str) -> tuple[ApiKey, ApiKey]:
        found = await self._store.get(api_key_key(old_id), ApiKey, fresh=True)
        if found is None or not _counts(found.record, self._clock.now()):
            raise unauthenticated()
        now = self._clock.now()
        new = replace(found.record, key_id=key.key_id, secret_sha256=key.secret_sha256, created_at=now)
        gone = replace(found.record, revoked_at=now)
        await self._store.transact([*key_writes(new), *await self._ending(gone, found.seq)])
        return gone, new

    async def _revoke(self, key_id: str, principal: Principal) -> ApiKey:
        found = await self._found(key_id, principal, "key.revoke")
        if found.record.admin:
            require(principal, "key.mint_admin", found.record.owner)
        if found.record.revoked_at is not None:
            return found.record
        gone = replace(found.record, revoked_at=self._clock.now())
        await self._store.transact(await self._ending(gone, found.seq))
        return gone

    async def _ending(self, gone: ApiKey, seq: int) -> list[Write]:
        """What ends a key: the record stays, so that nobody gets its id again, and its place in the list goes."""
        change = Write(key=api_key_key(gone.key_id), record=gone, expected_seq=seq)
        return [change, *await self._removals(gone.owner, gone.key_id)]

    async def _removals(self, owner: str, key_id: str) -> list[Write]:
        place = key_entry_key(owner, key_id)
        entry = await self._store.get(place, KeyEntry, fresh=True)
        return [] if entry is None else [Write(key=place, record=None, expected_seq=entry.seq)]

    # --- looking ---------------------------------------------------------------------------------------------------

    async def _found(self, key_id: str, principal: Principal, action: str) -> Versioned[ApiKey]:
        found = await self._store.get(api_key_key(key_id), ApiKey, fresh=True) if KEY_ID.match(key_id) else None
        if found is None or not authorize(principal, action, found.record.owner):
            raise _no_key()
        return found

    async def _of(self, owner: str) -> list[ApiKey]:
        now = self._clock.now()
        key_ids = [entry.rpartition(".")[2] for entry in await self._store.keys(key_entry_key(owner, "*"))]
        found = await self._store.get_all([api_key_key(key_id) for key_id in key_ids], ApiKey)
        keys = [each.record for each in found if each and _counts(each.record, now)]
        return sorted(keys, key=lambda key: (key.created_at, key.key_id))


def _counts(key: ApiKey, now: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


def _end_of(wanted: NewKey, now: datetime) -> datetime | None:
    if wanted.expires_in_s is not None:
        return now + timedelta(seconds=wanted.expires_in_s)
    if wanted.expires_at is not None and wanted.expires_at <= now:
        raise Invalid("out_of_range", "A key ends in the future.", field="expires_at")
    return wanted.expires_at


def _no_key() -> NotFound:
    return NotFound("key_not_found", "There is no such key.")
