"""Who is calling, and what they may do: the authenticator with its short memory, and the one authorizer.

A key is read and its checksum verified before anybody is asked; then its record is looked up by key id and the secret
compared as hashes in constant time. Answers, good and bad ones alike, are remembered for at most two seconds under a
digest of the header, so that a revoked key is dead everywhere within five.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from contracts.clock import Clock
from contracts.directory import api_key_key
from contracts.errors import Forbidden, Malformed
from contracts.records import ApiKey, Principal
from gateway.keys import KEY_LENGTH, PREFIX, parse_key, same_hash
from gateway.ports import DirectoryStore
from gateway.problems import unauthenticated

MEMORY: Final = timedelta(seconds=2)
MAX_REMEMBERED: Final = 10_000
MAX_HEADER_BYTES: Final = KEY_LENGTH + 32
_ADMIN_ACTIONS: Final = frozenset({"owner.assign", "key.mint_foreign", "key.mint_admin"})
_CREDENTIAL_NAMES: Final = ("api_key=", "apikey=", "access_token=", "authorization=", "key=", "token=")
# Compared with when there is no such key, so that an unknown id costs what a wrong secret costs.
_NOBODYS_HASH: Final = "0" * 64

Headers = list[tuple[bytes, bytes]]


def authorize(principal: Principal, action: str, owner: str) -> bool:
    """Say whether `principal` may do `action` to something of `owner`: one's own, and everything with an admin key."""
    return principal.admin or (principal.owner == owner and action not in _ADMIN_ACTIONS)


def require(principal: Principal, action: str, owner: str) -> None:
    """Raise `Forbidden` where hiding the thing would make no sense: it is the right that is missing."""
    if not authorize(principal, action, owner):
        raise Forbidden("admin_key_required", "This needs an admin key.")


@dataclass(frozen=True, slots=True)
class _Answer:
    principal: Principal | None
    key_id: str | None
    until: datetime


class Authenticator:
    """Turns a request's headers into a principal."""

    def __init__(self, store: DirectoryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._good: dict[bytes, _Answer] = {}
        # Apart from the good ones, so that a flood of wrong keys never pushes a right one out.
        self._bad: dict[bytes, _Answer] = {}

    async def principal(self, headers: Headers, query_string: bytes = b"") -> Principal:
        """Who is calling. Raises `Unauthenticated`, or `Malformed` for a key in the URL."""
        if query_string:
            refuse_credentials_in_url(query_string)
        header = _only_header(headers)
        digest = hashlib.blake2b(header, digest_size=16).digest()
        answer = self._good.get(digest) or self._bad.get(digest)
        if answer is None or answer.until < self._clock.now():
            answer = await self._ask(header)
            self._remember(digest, answer)
        if answer.principal is None:
            raise unauthenticated()
        return answer.principal

    def forget(self, key_id: str) -> None:
        """Drop what is remembered of a key that was just revoked."""
        self._good = {digest: answer for digest, answer in self._good.items() if answer.key_id != key_id}

    async def _ask(self, header: bytes) -> _Answer:
        until = self._clock.now() + MEMORY
        key = parse_key(header[7:].strip().decode("latin-1")) if header[:7].lower() == b"bearer " else None
        if key is None:
            return _Answer(None, None, until)
        found = await self._store.get(api_key_key(key.key_id), ApiKey)
        record = found.record if found else None
        matches = same_hash(key.secret_sha256, record.secret_sha256 if record else _NOBODYS_HASH)
        if record is None or not matches or record.revoked_at is not None:
            return _Answer(None, key.key_id, until)
        return _Answer(Principal(owner=record.owner, key_id=key.key_id, admin=record.admin), key.key_id, until)

    def _remember(self, digest: bytes, answer: _Answer) -> None:
        self._good.pop(digest, None)
        self._bad.pop(digest, None)
        memory = self._good if answer.principal else self._bad
        if len(memory) >= MAX_REMEMBERED:
            memory.clear()
        memory[digest] = answer


def _only_header(headers: Headers) -> bytes:
    found = [value for name, value in headers if name == b"authorization"]
    if len(found) != 1 or len(found[0]) > MAX_HEADER_BYTES:
        raise unauthenticated()
    return found[0]


def refuse_credentials_in_url(query_string: bytes) -> None:
    """A key in a URL ends up in logs and histories: say so, even when it would be the right one."""
    query = query_string.decode("latin-1").lower()
    holds_key = PREFIX in query and len(query) >= KEY_LENGTH
    if holds_key or any(f"&{name}" in f"&{query}" for name in _CREDENTIAL_NAMES):
        raise Malformed("credentials_in_url", "Send the key in the Authorization header, never in the URL.")
