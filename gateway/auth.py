"""Who is calling, and what they may do: the authenticator with its short memory, and the one authorizer.

The authorizer's questions, in their order; the first that is answered decides:

    an admin key?                                          yes
    somebody else's, or only for admin keys?               no
    bound to one agent, and this is not about that one?    no
    limits that allow the action, or none?                 yes
    a service account's own agent, and a self action?      yes
    otherwise                                              no

A key is read and its checksum verified before anybody is asked; then its record is looked up by key id and the secret
compared as hashes in constant time. A bearer with a token's three parts is the OpenID provider's, where there is one.
Answers, good and bad ones alike, are remembered for at most two seconds under a digest of the header, so that a revoked
key is dead everywhere within five.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol

from contracts.clock import Clock
from contracts.directory import account_key, agent_key, api_key_key
from contracts.errors import Forbidden, Malformed
from contracts.records import Agent, ApiKey, Principal, ServiceAccount
from contracts.words import AccountStatus
from gateway.keys import KEY_LENGTH, PREFIX, parse_key, same_hash
from gateway.oidc import MAX_TOKEN_BYTES, TokenBearer, looks_like_token
from gateway.permissions import insufficient_scope
from gateway.ports import DirectoryStore, KeyUses
from gateway.problems import unauthenticated
from gateway.scopes import ADMIN_ACTIONS, NAMING, SELF_ACTIONS, scope_may

MEMORY: Final = timedelta(seconds=2)
MAX_REMEMBERED: Final = 10_000
_SCHEME_BYTES: Final = 32
MAX_HEADER_BYTES: Final = KEY_LENGTH + _SCHEME_BYTES
MAX_HEADER_BYTES_WITH_TOKENS: Final = MAX_TOKEN_BYTES + _SCHEME_BYTES
_CREDENTIAL_NAMES: Final = ("api_key=", "apikey=", "access_token=", "id_token=", "authorization=", "key=", "token=")
# Compared with when there is no such key, so that an unknown id costs what a wrong secret costs.
_NOBODYS_HASH: Final = "0" * 64

Headers = list[tuple[bytes, bytes]]


def authorize(principal: Principal, action: str, owner: str, agent: Agent | None = None) -> bool:
    """Say whether `principal` may do `action` to something of `owner`.

    `agent` is given whenever the action concerns one agent; without it, it concerns the owner as a whole.
    """
    if principal.admin:
        return True
    if principal.owner != owner or action in ADMIN_ACTIONS:
        return False
    if not principal.is_confined and principal.scopes is None:
        return True
    if principal.agent_id is not None and action not in NAMING and (agent is None or agent.id != principal.agent_id):
        return False
    return scope_may(principal, action) or (action in SELF_ACTIONS and backs(principal, agent))


def backs(principal: Principal, agent: Agent | None) -> bool:
    """Whether the caller is the service account behind this agent."""
    account_id = principal.service_account_id
    return account_id is not None and agent is not None and agent.service_account_id == account_id


def reaches(principal: Principal, owner: str) -> bool:
    """Whether `owner`'s namespace may be looked at at all; what may be done there is `authorize`'s to say."""
    return principal.admin or principal.owner == owner


def require(principal: Principal, action: str, owner: str) -> None:
    """Raise `Forbidden` where hiding the thing would make no sense: it is the right that is missing."""
    if not authorize(principal, action, owner):
        raise Forbidden("admin_key_required", "This needs an admin key.")


def require_scope(principal: Principal, action: str, owner: str, agent: Agent | None = None) -> None:
    """Raise `Forbidden` (`insufficient_scope`) for what the caller may touch, and not do this to."""
    if not authorize(principal, action, owner, agent):
        raise insufficient_scope(action)


class Tokens(Protocol):
    """The tokens of an OpenID provider, as the authenticator uses them."""

    async def bearer(self, text: str) -> TokenBearer | None:
        """Whom a token speaks for; None for every token that does not count."""
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    principal: Principal | None
    key_id: str | None
    until: datetime


class Authenticator:
    """Turns a request's headers into a principal, and notes which keys are in use."""

    def __init__(
        self, store: DirectoryStore, clock: Clock, uses: KeyUses | None = None, tokens: Tokens | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._uses = uses
        self._tokens = tokens
        self._max_header_bytes = MAX_HEADER_BYTES if tokens is None else MAX_HEADER_BYTES_WITH_TOKENS
        self._good: dict[bytes, _Answer] = {}
        # Apart from the good ones, so that a flood of wrong keys never pushes a right one out.
        self._bad: dict[bytes, _Answer] = {}

    async def principal(self, headers: Headers, query_string: bytes = b"") -> Principal:
        """Who is calling. Raises `Unauthenticated`, or `Malformed` for a key in the URL."""
        if query_string:
            refuse_credentials_in_url(query_string)
        header = _only_header(headers, self._max_header_bytes)
        digest = hashlib.blake2b(header, digest_size=16).digest()
        answer = self._good.get(digest) or self._bad.get(digest)
        if answer is None or answer.until <= self._clock.now():
            answer = await self._ask(header)
            self._remember(digest, answer)
        if answer.principal is None:
            raise unauthenticated()
        return answer.principal

    def check_of(self, headers: Headers) -> Callable[[], Awaitable[Principal]]:
        """What raises `Unauthenticated` as soon as the key of these headers counts no more."""
        return partial(self.principal, headers)

    def forget(self, key_id: str) -> None:
        """Drop what is remembered of a key that was just revoked."""
        self._good = {digest: answer for digest, answer in self._good.items() if answer.key_id != key_id}

    async def _ask(self, header: bytes) -> _Answer:
        now = self._clock.now()
        until = now + MEMORY
        text = header[7:].strip().decode("latin-1") if header[:7].lower() == b"bearer " else ""
        if self._tokens is not None and looks_like_token(text):
            return _token_answer(await self._tokens.bearer(text), until)
        key = parse_key(text)
        if key is None:
            return _Answer(None, None, until)
        found = await self._store.get(api_key_key(key.key_id), ApiKey)
        record = found.record if found else None
        matches = same_hash(key.secret_sha256, record.secret_sha256 if record else _NOBODYS_HASH)
        if record is None or not matches or not await self._counts(record, now):
            return _Answer(None, key.key_id, until)
        if self._uses is not None:
            self._uses.note(key.key_id)
        return _Answer(principal_of(record), key.key_id, min(until, record.expires_at or until))

    async def _counts(self, record: ApiKey, now: datetime) -> bool:
        """Whether the key counts at `now`, which it does no longer than whom it acts for."""
        if record.revoked_at is not None or (record.expires_at is not None and record.expires_at <= now):
            return False
        if record.agent_id is not None:
            agent = await self._store.get(agent_key(record.agent_id), Agent)
            return agent is not None and agent.record.deleted_at is None
        if record.service_account_id is not None:
            account = await self._store.get(account_key(record.service_account_id), ServiceAccount)
            return account is not None and account.record.status is AccountStatus.ACTIVE
        return True

    def _remember(self, digest: bytes, answer: _Answer) -> None:
        self._good.pop(digest, None)
        self._bad.pop(digest, None)
        memory = self._good if answer.principal else self._bad
        if len(memory) >= MAX_REMEMBERED:
            memory.clear()
        memory[digest] = answer


def principal_of(key: ApiKey) -> Principal:
    return Principal(
        owner=key.owner,
        key_id=key.key_id,
        admin=key.admin,
        scopes=None if key.scopes is None else frozenset(key.scopes),
        agent_id=key.agent_id,
        service_account_id=key.service_account_id,
        expires_at=key.expires_at,
    )


def _token_answer(found: TokenBearer | None, until: datetime) -> _Answer:
    if found is None:
        return _Answer(None, None, until)
    return _Answer(found.principal, found.principal.key_id, min(until, found.ends_at))


def _only_header(headers: Headers, max_bytes: int) -> bytes:
    found = [value for name, value in headers if name == b"authorization"]
    if len(found) != 1 or len(found[0]) > max_bytes:
        raise unauthenticated()
    return found[0]


def refuse_credentials_in_url(query_string: bytes) -> None:
    """A key in a URL ends up in logs and histories: say so, even when it would be the right one."""
    query = query_string.decode("latin-1").lower()
    holds_key = PREFIX in query and len(query) >= KEY_LENGTH
    if holds_key or any(f"&{name}" in f"&{query}" for name in _CREDENTIAL_NAMES):
        raise Malformed("credentials_in_url", "Send the key in the Authorization header, never in the URL.")
