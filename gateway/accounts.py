"""Accounts: an owner's name made from an e-mail address, and the first key of whoever registers."""

import hashlib
import re
from typing import Final

from contracts.clock import Clock, Ids
from contracts.directory import EmailEntry, Owner, email_key, owner_key
from contracts.errors import Conflict
from contracts.records import ApiKey
from gateway.address import RESERVED_SLUGS
from gateway.directory import decided, key_writes
from gateway.keys import KEY_BYTES, new_key
from gateway.ports import DirectoryStore, Write

MAX_NAME: Final = 58
"""With a suffix of five it stays a slug."""


class Accounts:
    """Who registers gets a namespace and a key of its own."""

    def __init__(self, *, store: DirectoryStore, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def register(self, email: str) -> tuple[ApiKey, str]:
        """The key of the new owner, and its text. Raises `Conflict` (`duplicate_email`)."""
        key = new_key(self._ids.secret(KEY_BYTES))
        record = await decided(lambda: self._register(email.lower(), key.key_id, key.secret_sha256))
        return record, key.text

    async def email_of(self, owner: str) -> str | None:
        found = await self._store.get(owner_key(owner), Owner)
        return found.record.email if found else None

    async def _register(self, email: str, key_id: str, secret_sha256: str) -> ApiKey:
        email_at = email_key(hashlib.sha256(email.encode()).hexdigest())
        if await self._store.get(email_at, EmailEntry, fresh=True):
            raise Conflict("duplicate_email", "This address is registered.", field="email")
        owner, now = await self._free_name(email), self._clock.now()
        record = ApiKey(key_id=key_id, owner=owner, secret_sha256=secret_sha256, created_at=now, name="registration")
        await self._store.transact(
            [
                Write(key=email_at, record=EmailEntry(owner=owner), expected_seq=0),
                Write(key=owner_key(owner), record=Owner(owner=owner, created_at=now, email=email), expected_seq=0),
                *key_writes(record),
            ]
        )
        return record

    async def _free_name(self, email: str) -> str:
        name = slug_of(email.partition("@")[0], otherwise="user")
        is_taken = name in RESERVED_SLUGS or await self._store.get(owner_key(name), Owner, fresh=True)
        return f"{name}-{self._ids.secret(2).hex()}" if is_taken else name


def slug_of(text: str, *, otherwise: str) -> str:
    """A name made of any text: lower case, everything but letters and digits as `-`, at most 58 characters."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:MAX_NAME].strip("-") or otherwise
