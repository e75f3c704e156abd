"""Service accounts come, change and go. None goes while it backs an agent or a key of it counts."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from contracts.clock import Clock, Ids
from contracts.directory import (
    AccountEntry,
    account_entry_key,
    account_key,
    account_name_key,
    api_key_key,
    backed_key,
    key_entry_key,
)
from contracts.errors import Conflict, Forbidden, NotFound
from contracts.ids import ACCOUNT_ID
from contracts.records import ApiKey, ServiceAccount
from contracts.words import AccountStatus
from gateway.directory import decided, owner_writes
from gateway.ports import DirectoryStore, Versioned, Write
from gateway.schemas_projects import NewServiceAccount, ServiceAccountChange

MAX_PER_OWNER: Final = 1_000


class ServiceAccounts:
    """Service accounts of an owner whom the caller was already allowed to name."""

    def __init__(self, *, store: DirectoryStore, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def create(self, owner: str, wanted: NewServiceAccount) -> ServiceAccount:
        """Raises `Conflict` (`service_account_name_taken`), `Forbidden` (`service_account_limit_exceeded`)."""
        if len(await self._ids_of(owner)) >= MAX_PER_OWNER:
            message = f"A project may have {MAX_PER_OWNER} service accounts."
            raise Forbidden("service_account_limit_exceeded", message)
        now = self._clock.now()
        account = ServiceAccount(
            id=f"sa_{self._ids.ulid()}",
            owner=owner,
            name=wanted.name,
            created_at=now,
            updated_at=now,
            display_name=wanted.display_name,
            description=wanted.description,
            owner_user_id=wanted.owner_user_id,
            metadata=wanted.metadata,
        )
        await decided(lambda: self._create(account))
        return account

    async def of_owner(
        self, owner: str, *, status: AccountStatus | None, after: str, limit: int
    ) -> tuple[Sequence[ServiceAccount], str | None]:
        """One page in the order they were made in, and the id to go on behind."""
        rest = [each for each in await self._ids_of(owner) if each > after]
        found = await self._store.get_all([account_key(each) for each in rest], ServiceAccount)
        accounts = [each.record for each in found if each and status in (None, each.record.status)]
        return accounts[:limit], accounts[limit - 1].id if len(accounts) > limit else None

    async def find(self, owner: str, account_id: str) -> ServiceAccount:
        return (await find_account(self._store, owner, account_id)).record

    async def change(self, owner: str, account_id: str, wanted: ServiceAccountChange) -> ServiceAccount:
        """Change what is named; a disabled account's keys do not count from then on."""
        fields: dict[str, Any] = {name: getattr(wanted, name) for name in wanted.model_fields_set}
        if "status" in fields:
            fields["status"] = AccountStatus(wanted.status)

        async def attempt() -> ServiceAccount:
            found = await find_account(self._store, owner, account_id)
            changed = replace(found.record, updated_at=self._clock.now(), **fields)
            await self._store.transact([Write(key=account_key(changed.id), record=changed, expected_seq=found.seq)])
            return changed

        return await decided(attempt)

    async def delete(self, owner: str, account_id: str) -> ServiceAccount:
        """Raises `Conflict` (`service_account_in_use`) with how many agents and keys there are."""
        return await decided(lambda: self._delete(owner, account_id))

    async def _create(self, account: ServiceAccount) -> None:
        name_key, entry = _name_key(account), AccountEntry(account_id=account.id)
        if await self._store.get(name_key, AccountEntry, fresh=True):
            message = "This project has another service account of this name."
            raise Conflict("service_account_name_taken", message, field="name")
        await self._store.transact(
            [
                *await owner_writes(self._store, account.owner, self._clock),
                Write(key=account_key(account.id), record=account, expected_seq=0),
                Write(key=account_entry_key(account.owner, account.id), record=entry, expected_seq=0),
                Write(key=name_key, record=entry, expected_seq=0),
            ]
        )

    async def _delete(self, owner: str, account_id: str) -> ServiceAccount:
        # Read before what refers to it is counted: whoever adds a reference writes the account anew (`held`).
        found = await find_account(self._store, owner, account_id)
        await self._refuse_in_use(owner, account_id)
        writes = [Write(key=account_key(account_id), record=None, expected_seq=found.seq)]
        for key in (account_entry_key(owner, account_id), _name_key(found.record)):
            entry = await self._store.get(key, AccountEntry, fresh=True)
            writes += [Write(key=key, record=None, expected_seq=entry.seq)] if entry else []
        await self._store.transact(writes)
        return found.record

    async def _refuse_in_use(self, owner: str, account_id: str) -> None:
        agents = len(await self._store.keys(f"{backed_key(account_id, '')}*"))
        keys = await self._count_keys(owner, account_id)
        if agents or keys:
            message = "This service account backs agents, or has keys that count."
            raise Conflict("service_account_in_use", message, agents=agents, keys=keys)

    async def _count_keys(self, owner: str, account_id: str) -> int:
        prefix, now = key_entry_key(owner, ""), self._clock.now()
        key_ids = [each.removeprefix(prefix) for each in await self._store.keys(f"{prefix}*")]
        found = [await self._store.get(api_key_key(each), ApiKey, fresh=True) for each in key_ids]
        keys = [each.record for each in found if each and each.record.service_account_id == account_id]
        return sum(not key.revoked_at and (key.expires_at is None or now < key.expires_at) for key in keys)

    async def _ids_of(self, owner: str) -> list[str]:
        prefix = account_entry_key(owner, "")
        return [f"sa_{key.removeprefix(prefix)}" for key in await self._store.keys(f"{prefix}*")]


async def find_account(store: DirectoryStore, owner: str, account_id: str) -> Versioned[ServiceAccount]:
    """The account as it is now. Raises the same `NotFound` for what is absent and what is another owner's."""
    found = None
    if ACCOUNT_ID.match(account_id):
        found = await store.get(account_key(account_id), ServiceAccount, fresh=True)
    if found is None or found.record.owner != owner:
        raise NotFound("service_account_not_found", "There is no such service account.")
    return found


def held(found: Versioned[ServiceAccount]) -> Write:
    """What goes with every new reference to an account: nothing changes, and whoever deletes it meanwhile starts over.

    Raises `Conflict` (`service_account_disabled`) for one that nothing new is made for.
    """
    if found.record.status is AccountStatus.DISABLED:
        raise Conflict("service_account_disabled", "This service account is disabled.")
    return Write(key=account_key(found.record.id), record=found.record, expected_seq=found.seq)


def _name_key(account: ServiceAccount) -> str:
    return account_name_key(account.owner, hashlib.sha256(account.name.encode()).hexdigest())
