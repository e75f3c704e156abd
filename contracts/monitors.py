"""Monitors' credentials at the broker, as stored: who asked for which, and whose count no more.

    monitor.<monitor id>            Monitor
    monitors.<owner>.<monitor id>   MonitorEntry
    revoked.<account>               Revocations

A credential is a JWT that the broker believes without asking anybody; what is kept of it is what it takes to revoke it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

LONGEST_LIFE: Final = timedelta(minutes=15)
"""No credential lives longer, so a revocation is needed no longer either."""
AGENTS_PER_MONITOR: Final = 200
ACCOUNT_UNKNOWN: Final = "account_unknown"
"""The code of the error that says that the broker has no such account."""
EVERYBODY: Final = "*"
"""As a revoked user: every credential of the account that was issued until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One JWT that was given out: to which key of the monitor's own, and on what it stands.

    It counts while the API key `key_id` and `service_account_id` do, all of `agent_ids` exist, and it is not withdrawn.
    Without `key_id` it was asked for with a token, which cannot be revoked.
    """

    public_key: str
    key_id: str | None
    agent_ids: tuple[str, ...]
    issued_at: datetime
    expires_at: datetime
    service_account_id: str | None = None
    withdrawn_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """A monitor's id, which belongs to the owner who used it first, and its credentials that have not expired.

    `account` is the broker's account all of them are in.
    """

    monitor_id: str
    owner: str
    account: str
    created_at: datetime
    credentials: tuple[Credential, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorEntry:
    """That an owner has a monitor of this id."""

    monitor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedUser:
    """A key, or `EVERYBODY`, whose JWTs of until `revoked_at` count no more; from `until` on there are none left."""

    public_key: str
    revoked_at: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """What of an account the broker has to be told, or to be told that it may forget."""

    users: tuple[RevokedUser, ...] = ()


def monitor_key(monitor_id: str) -> str:
    return f"monitor.{monitor_id}"


def monitor_entry_key(owner: str, monitor_id: str) -> str:
    """Where an owner's monitors are listed; an empty id gives the beginning that all of them share."""
    return f"monitors.{owner}.{monitor_id}"


def revocations_key(account: str) -> str:
    return f"revoked.{account}"
