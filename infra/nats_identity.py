"""Who is who at an installation's broker: operator, accounts and users, made once and kept in one folder.

    FOLDER/                     0700, every file 0600
      keys/   operator.seed     the root of trust; needed to make a new signing key and for nothing else
              operator-signing.seed   signs accounts: whoever has it decides what accounts may do
              core.seed …       the accounts' identities; needed for nothing that runs
              edge-signing.key        signs users of EDGE: the gateway mints monitors' JWTs with it
      creds/  core.creds        gateway, router, and commands that read the ledger
              sys.creds         the check of the broker at a program's start; revocations
              edge.creds        one user that may do what every monitor may: for development tools
      broker/ operator.jwt      public: what the broker trusts
              jwt/A….jwt        the accounts; the broker's own folder, which it rewrites when one is updated

The accounts: CORE holds our programs and every stream. EDGE holds monitors: no JetStream, no leaf nodes, and of CORE's
messages the pushes alone; CORE hears its heartbeats. SYS is the server's own.

What mints monitors' JWTs reads `AccountSigner` (the account's public key and one of its signing keys) from
`edge-signing.key` by `read_signer`: the setting POSTROOM_NATS_EDGE_SIGNING_KEY names the file. What revokes them
changes the account's JWT (looked up at the broker, never taken from this folder, whose copy may be older) and has it
signed by the operator's signing key: POSTROOM_NATS_OPERATOR_SIGNING_KEY names that file.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from infra.nats_jwt import (
    Account,
    AccountLimits,
    BadCredential,
    Import,
    User,
    account_jwt,
    activation_jwt,
    creds_text,
    operator_jwt,
    user_jwt,
)
from infra.nats_keys import BadKey, Kind, NatsKey, require_public

OPERATOR: Final = "postroom"
CORE: Final = "CORE"
EDGE: Final = "EDGE"
SYS: Final = "SYS"
ACCOUNTS: Final = (CORE, EDGE, SYS)
PUSHES: Final = ("live.>", "bg.>", "inbox.>", "webhook.>")
"""What monitors may hear: CORE lets it out, EDGE takes it in."""
BEATS: Final = ("hb.>",)
"""What monitors may say: EDGE lets it out, CORE takes it in."""
EDGE_LIMITS: Final = AccountLimits(connections=8192, leaf_nodes=0, payload_bytes=64 * 1024)
CORE_LIMITS: Final = AccountLimits(jetstream=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountKeys:
    """Who an account is, and what its users' JWTs are signed with."""

    identity: NatsKey
    signing: NatsKey

    @property
    def public(self) -> str:
        return self.identity.public


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSigner:
    """The right to make users of one account: its public key, and a key it signs with."""

    account: str
    key: NatsKey


class NatsIdentity:
    """An identity that lies in a folder. Made by `installation_identity`; files are read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def operator_jwt_path(self) -> Path:
        return self.folder / "broker" / "operator.jwt"

    @property
    def jwt_dir(self) -> Path:
        return self.folder / "broker" / "jwt"

    def creds_path(self, account: str) -> Path:
        """The creds file of the account's first user: `core`, `edge` or `sys`."""
        return self.folder / "creds" / f"{account.lower()}.creds"

    def key_path(self, name: str) -> Path:
        """The file of a seed, by its name: `operator`, `operator-signing`, `core`, `edge` or `sys`."""
        return self.folder / "keys" / f"{name}.seed"

    def signer_path(self, account: str) -> Path:
        """The file of an account's signing key, as `read_signer` reads it."""
        return self.folder / "keys" / f"{account.lower()}-signing.key"

    def key(self, name: str) -> NatsKey:
        return read_key(self.key_path(name))

    @property
    def operator_signing(self) -> NatsKey:
        return self.key("operator-signing")

    @property
    def accounts(self) -> Mapping[str, AccountKeys]:
        return {name: self.account(name) for name in ACCOUNTS}

    def account(self, name: str) -> AccountKeys:
        return AccountKeys(identity=self.key(name.lower()), signing=read_signer(self.signer_path(name)).key)


def installation_identity(folder: Path, now: datetime) -> NatsIdentity:
    """The identity in `folder`, made the first time. Nothing in it is ever replaced.

    Programs that start together agree on one: a folder appears complete, and the first wins. Raises `BadCredential`
    when the folder holds something else.
    """
    folder = folder.absolute()
    if not holds_something(folder):
        _make(folder, now)
    found = NatsIdentity(folder)
    needed = [found.operator_jwt_path, *(found.creds_path(name) for name in ACCOUNTS)]
    missing = next((path for path in needed if not path.is_file()), None)
    if missing is not None:
        raise BadCredential(f"{folder} is no broker identity: {missing.name} is missing; choose another folder")
    return found


def holds_something(folder: Path) -> bool:
    """Whether there is an identity in `folder`, or anything else that none is made over."""
    return folder.exists() and any(folder.iterdir())


def read_key(path: Path) -> NatsKey:
    """The key whose seed is in a file. Raises `BadCredential`, which names the file and never shows what it holds."""
    try:
        return NatsKey(_text(path).strip())
    except BadKey:
        raise BadCredential(f"the key file {path} holds no seed") from None


def read_signer(path: Path) -> AccountSigner:
    """An account's signing key from its file: a line `account A…`, a line `seed SA…`. Raises as `read_key` does."""
    lines = dict(line.split(maxsplit=1) for line in _text(path).splitlines() if len(line.split()) == 2)
    try:
        signer = AccountSigner(account=require_public(lines["account"], Kind.ACCOUNT), key=NatsKey(lines["seed"]))
    except (BadKey, KeyError):
        raise BadCredential(f"the key file {path} does not hold an account's public key and a seed") from None
    if signer.key.kind is not Kind.ACCOUNT:
        raise BadCredential(f"the key file {path} holds the seed of another kind of key than an account's")
    return signer


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise BadCredential(f"the key file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadCredential(f"the key file {path} is no text") from None


def _make(folder: Path, now: datetime) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}")
    try:
        _write(draft, _contents(now))
        # A folder is never renamed onto one that holds something.
        draft.rename(folder)
        _sync(folder.parent)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _contents(now: datetime) -> dict[str, str]:
    """Every file of a fresh identity by its path within the folder."""
    operator, operator_signing = NatsKey.fresh(Kind.OPERATOR), NatsKey.fresh(Kind.OPERATOR)
    accounts = {
        name: AccountKeys(identity=NatsKey.fresh(Kind.ACCOUNT), signing=NatsKey.fresh(Kind.ACCOUNT))
        for name in ACCOUNTS
    }
    files = {"keys/operator.seed": operator.seed, "keys/operator-signing.seed": operator_signing.seed}
    files["broker/operator.jwt"] = operator_jwt(
        operator,
        name=OPERATOR,
        signing_keys=[operator_signing.public],
        system_account=accounts[SYS].public,
        now=now,
    )
    for account in _accounts(accounts, now):
        files[f"broker/jwt/{account.public}.jwt"] = account_jwt(operator_signing, account, now)
    for name, keys in accounts.items():
        files[f"keys/{name.lower()}.seed"] = keys.identity.seed
        files[f"keys/{name.lower()}-signing.key"] = f"account {keys.public}\nseed {keys.signing.seed}\n"
        files[f"creds/{name.lower()}.creds"] = _first_user(name, keys, now)
    return files


def _accounts(keys: Mapping[str, AccountKeys], now: datetime) -> list[Account]:
    def import_from(exporter: str, importer: str, subject: str) -> Import:
        activation = activation_jwt(
            keys[exporter].signing,
            exporter=keys[exporter].public,
            importer=keys[importer].public,
            subject=subject,
            now=now,
        )
        return Import(subject=subject, account=keys[exporter].public, activation=activation)

    heard = [import_from(CORE, EDGE, subject) for subject in PUSHES]
    beats = [import_from(EDGE, CORE, subject) for subject in BEATS]
    return [
        _account(CORE, keys[CORE], PUSHES, beats, CORE_LIMITS),
        _account(EDGE, keys[EDGE], BEATS, heard, EDGE_LIMITS),
        _account(SYS, keys[SYS], (), [], AccountLimits()),
    ]


def _account(
    name: str, keys: AccountKeys, exports: tuple[str, ...], imports: list[Import], limits: AccountLimits
) -> Account:
    return Account(
        public=keys.public,
        name=name,
        signing_keys=[keys.signing.public],
        exports=exports,
        imports=imports,
        limits=limits,
    )


def _first_user(account: str, keys: AccountKeys, now: datetime) -> str:
    key = NatsKey.fresh(Kind.USER)
    confined = account == EDGE
    user = User(
        public=key.public,
        name=account.lower(),
        account=keys.public,
        subscribe=PUSHES if confined else None,
        publish=BEATS if confined else None,
    )
    return creds_text(user_jwt(keys.signing, user, now), key)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(mode=0o700)
    for name, text in files.items():
        path = folder / name
        for parent in (path.parent.parent, path.parent):
            parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            # The broker's streams belong to these keys: a power cut must not part them.
            os.fsync(file.fileno())
    for each in (folder, *folder.rglob("*")):
        if each.is_dir():
            _sync(each)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
