"""The JWTs a NATS server in operator mode believes, and creds files: encoded and read back, nothing else. Pure.

    operator ──signs──▶ account ──signs──▶ user            each by its key, or by one of its signing keys
    account ──signs──▶ activation: this account may import that export

The server asks nobody: a user's JWT carries all its rights, and the account's JWT says who is revoked. Claims are those
of version 2 of the format (nats-io/jwt): `nats.type` names the kind, -1 is "no limit", a subject list that is empty
denies everything only when it is written as `deny: [">"]`.

A program that mints JWTs for monitors needs the account's public key, one of its signing keys as `NatsKey`, and the
user's public key: `user_jwt(signing_key, User(public=…, account=…, subscribe=(…), publish=(…), expires_at=…), now)`.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from infra.nats_keys import BadKey, Kind, NatsKey, is_signed, require_public

UNLIMITED: Final = -1
EVERYTHING: Final = ">"
EVERYBODY: Final = "*"
"""As a revoked user: everybody whose JWT is not younger."""
VERSION: Final = 2
HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}
KINDS: Final = {"O": Kind.OPERATOR, "A": Kind.ACCOUNT, "U": Kind.USER}

Claims = dict[str, Any]


class BadCredential(ValueError):
    """A JWT or a creds file cannot be read or believed. Says what is wrong and never what the text was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """Messages on `subject` that another account lets out; `activation` is its permission when it asks for one."""

    subject: str
    account: str
    activation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLimits:
    """What all users of one account may have together (connections), and each of them (subscriptions, payload)."""

    connections: int = UNLIMITED
    leaf_nodes: int = 0
    subscriptions: int = UNLIMITED
    payload_bytes: int = UNLIMITED
    jetstream: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account: who it is, who may sign its users, what leaves it and comes in, who of it is revoked.

    `exports` are streams that an importer needs an activation for. `revoked_at` maps a user's public key, or
    `EVERYBODY`, to an instant: what was issued until then counts no more, and open connections are closed.
    """

    public: str
    name: str
    signing_keys: Sequence[str] = ()
    exports: Sequence[str] = ()
    imports: Sequence[Import] = ()
    limits: AccountLimits = field(default_factory=AccountLimits)
    revoked_at: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One user of `account` (its public key). A list of subjects allows these alone; None allows everything.

    Limits are per connection: subscriptions, bytes of one message. Without `expires_at` the JWT never ends.
    """

    public: str
    name: str
    account: str
    subscribe: Sequence[str] | None = None
    publish: Sequence[str] | None = None
    subscriptions: int = UNLIMITED
    payload_bytes: int = UNLIMITED
    expires_at: datetime | None = None
    tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Creds:
    """What a creds file holds: a user's JWT, and the key that proves it is ours."""

    jwt: str = field(repr=False)
    key: NatsKey


def operator_jwt(key: NatsKey, *, name: str, signing_keys: Sequence[str], system_account: str, now: datetime) -> str:
    """The root of trust. Accounts and users are believed only when *signing* keys signed them, never identities."""
    body: Claims = {
        "signing_keys": list(signing_keys),
        "system_account": system_account,
        "strict_signing_key_usage": True,
    }
    return _encode(key, subject=key.public, name=name, kind="operator", body=body, now=now)


def account_jwt(signer: NatsKey, account: Account, now: datetime) -> str:
    """An account as the operator's signing key vouches for it. Raises `BadKey` for keys of the wrong kind."""
    body: Claims = {
        "exports": [
            {"name": subject, "subject": subject, "type": "stream", "token_req": True} for subject in account.exports
        ],
        "imports": [_import(each) for each in account.imports],
        "signing_keys": [require_public(each, Kind.ACCOUNT) for each in account.signing_keys],
        "revocations": {user: _seconds(instant) for user, instant in account.revoked_at.items()},
        "limits": _account_limits(account.limits),
        "default_permissions": {"pub": {}, "sub": {}},
        "authorization": {},
    }
    public = require_public(account.public, Kind.ACCOUNT)
    return _encode(signer, subject=public, name=account.name, kind="account", body=body, now=now)


def revoking(
    jwt: str, signer: NatsKey, revoked_at: Mapping[str, datetime], now: datetime, *, forgotten: Collection[str] = ()
) -> str:
    """An account's JWT with further revocations (see `Account`), as the operator's signing key vouches for it.

    Revocations of the users `forgotten` are left out. Raises `BadCredential` when the text is no account's JWT.
    """
    claims = read_jwt(jwt)
    body: Claims = claims["nats"]
    if body.get("type") != "account":
        raise BadCredential("this JWT is not an account's")
    kept = {user: second for user, second in (body.get("revocations") or {}).items() if user not in forgotten}
    added = {user: _seconds(instant) for user, instant in revoked_at.items()}
    body = body | {"revocations": kept | added}
    return _encode(signer, subject=claims["sub"], name=claims["name"], kind="account", body=body, now=now)


def activation_jwt(signer: NatsKey, *, exporter: str, importer: str, subject: str, now: datetime) -> str:
    """The permission of account `exporter`, given by its signing key, that `importer` imports `subject`."""
    body: Claims = {"subject": subject, "kind": "stream", "issuer_account": exporter}
    return _encode(signer, subject=importer, name=subject, kind="activation", body=body, now=now)


def user_jwt(signer: NatsKey, user: User, now: datetime) -> str:
    """A user as one of the account's signing keys vouches for it. Raises `BadKey` when a key is of the wrong kind."""
    body: Claims = {
        "issuer_account": require_public(user.account, Kind.ACCOUNT),
        "pub": _allowed(user.publish),
        "sub": _allowed(user.subscribe),
        "subs": user.subscriptions,
        "data": UNLIMITED,
        "payload": user.payload_bytes,
        "allowed_connection_types": ["STANDARD"],
    }
    if user.tags:
        body["tags"] = list(user.tags)
    public = require_public(user.public, Kind.USER)
    return _encode(signer, subject=public, name=user.name, kind="user", body=body, now=now, expires_at=user.expires_at)


def read_jwt(text: str) -> Claims:
    """The claims of a JWT whose signature is its issuer's; whether *that* one may be trusted, the caller decides.

    Raises `BadCredential` when it is malformed or was changed.
    """
    try:
        header, payload, signature = text.strip().split(".")
        claims = json.loads(_unpadded(payload))
        issuer = str(claims["iss"])
        sound = json.loads(_unpadded(header)) == HEADER
        genuine = sound and is_signed(f"{header}.{payload}".encode(), _unpadded(signature), issuer, KINDS[issuer[:1]])
    except (ValueError, KeyError, TypeError, binascii.Error, BadKey):
        raise BadCredential("this is no JWT of NATS") from None
    if not genuine or not isinstance(claims.get("nats"), dict):
        raise BadCredential("this JWT was not signed by its issuer")
    return dict(claims)


def creds_text(jwt: str, key: NatsKey) -> str:
    """A creds file, as every NATS client reads it."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "The seed below is a secret: whoever has it is this user.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{key.seed}\n------END USER NKEY SEED------\n"
    )


def read_creds(text: str) -> Creds:
    """Read a creds file. Raises `BadCredential` when a part is missing, or damaged, or of another user."""
    try:
        key = NatsKey(_section(text, "USER NKEY SEED"))
    except BadKey as error:
        raise BadCredential(f"the seed of the user cannot be read: {error}") from None
    jwt = _section(text, "NATS USER JWT")
    if read_jwt(jwt).get("sub") != key.public:
        raise BadCredential("the JWT and the seed are of different users")
    return Creds(jwt=jwt, key=key)


def _section(text: str, title: str) -> str:
    found = re.search(rf"-{{3,}} *BEGIN {title} *-{{3,}}\s+(\S+)\s+-{{3,}} *END {title} *-{{3,}}", text)
    if found is None:
        raise BadCredential(f"there is no section {title}")
    return found[1]


def _encode(
    signer: NatsKey,
    *,
    subject: str,
    name: str,
    kind: str,
    body: Claims,
    now: datetime,
    expires_at: datetime | None = None,
) -> str:
    claims: Claims = {
        "iat": _seconds(now),
        "iss": signer.public,
        "name": name,
        "sub": subject,
        "nats": body | {"type": kind, "version": VERSION},
    }
    if expires_at is not None:
        claims["exp"] = _seconds(expires_at)
    claims["jti"] = base64.b32encode(hashlib.sha256(_json(claims)).digest()).decode().rstrip("=")
    signed = f"{_padless(_json(HEADER))}.{_padless(_json(claims))}"
    return f"{signed}.{_padless(signer.sign(signed.encode()))}"


def _import(each: Import) -> Claims:
    """The subject keeps its name in the importing account."""
    told = {"name": each.subject, "subject": each.subject, "account": each.account, "type": "stream"}
    return told | ({"token": each.activation} if each.activation else {})


def _account_limits(limits: AccountLimits) -> Claims:
    storage = UNLIMITED if limits.jetstream else 0
    return {
        "conn": limits.connections,
        "leaf": limits.leaf_nodes,
        "subs": limits.subscriptions,
        "payload": limits.payload_bytes,
        "data": UNLIMITED,
        "exports": UNLIMITED,
        "imports": UNLIMITED,
        "wildcards": True,
        # A bearer token would be a JWT that works without its key.
        "disallow_bearer": True,
        "mem_storage": storage,
        "disk_storage": storage,
        "streams": storage,
        "consumer": storage,
    }


def _allowed(subjects: Sequence[str] | None) -> Claims:
    if subjects is None:
        return {}
    return {"allow": list(subjects)} if subjects else {"deny": [EVERYTHING]}


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _padless(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _seconds(instant: datetime) -> int:
    return int(instant.timestamp())
