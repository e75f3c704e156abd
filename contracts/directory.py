"""The directory's keys and small records: who exists, under which name. One bucket, changed by compare-and-set.

    owner.<owner>            Owner           key.<key id>             ApiKey
    keys.<owner>.<key id>    KeyEntry
    agent.<12 characters>    Agent           slug.<owner>.<slug>      SlugEntry
    gone.<owner>.<12 characters>  SlugEntry of a deleted agent
    live.<12 characters>     LiveSessions    secret.<name>            ServerSecret
    subs.<12 characters>     Subscriptions   mark.<subscription id>   SubscriptionMark
    grant.<from>.<to>        Grant           email.<sha-256, hex>     EmailEntry
    cue.<ulid>, cues.<owner>.<ulid>, cuename.<owner>.<sha-256, hex>: see `contracts/cues.py`
    redrive.<owner>.<ulid>   Redrive         redrun.<ulid>            RedriveRun
    redrives                 OpenRedrives
    account.<ulid>           ServiceAccount  accounts.<owner>.<ulid>  AccountEntry
    accountname.<owner>.<sha-256, hex>  AccountEntry
    backed.<ulid>.<12 characters>       SlugEntry of an agent this account backs
    monitor.<id>, monitors.<owner>.<id>, revoked.<account>: see `contracts/monitors.py`

Keys are built from ids and slugs whose grammar allows no dot, wildcard or space. A slug is unique within its owner
because its key is created, never overwritten.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from contracts.cues import Cue, CueEntry, CueName
from contracts.monitors import Monitor, MonitorEntry, Revocations
from contracts.records import Agent, ApiKey, LiveSession, ServiceAccount
from contracts.redrives import OpenRedrives, Redrive, RedriveRun
from contracts.subscriptions import SubscriptionMark, Subscriptions

PUSH_NONCES: Final = "push-nonce"
"""The name of the secret that the nonces of live pushes are derived from."""
BEAT_PROOFS: Final = "beat-proof"
"""The name of the secret that proves which sessions a monitor may beat for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A namespace of agents."""

    owner: str
    created_at: datetime
    email: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlugEntry:
    """Which agent a slug names."""

    agent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailEntry:
    """Which owner an e-mail address has registered."""

    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """That an owner has a key: what lists are made from, so that nobody has to look at everybody's keys."""

    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEntry:
    """Which service account this is: under its owner for lists, and under its name, which is unique there."""

    account_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSessions:
    """The attached sessions of one agent, and the last few detached ones, oldest first."""

    sessions: tuple[LiveSession, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSecret:
    """A secret all programs of one installation share, e.g. the one push nonces are derived from. Hex."""

    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """That `to` may send to those agents of `giver` that are externally addressable. Withdrawn by deleting it."""

    giver: str
    to: str
    created_at: datetime


DirectoryRecord = (
    Owner
    | EmailEntry
    | ApiKey
    | KeyEntry
    | Agent
    | SlugEntry
    | ServiceAccount
    | AccountEntry
    | LiveSessions
    | ServerSecret
    | Grant
    | Subscriptions
    | SubscriptionMark
    | Redrive
    | RedriveRun
    | OpenRedrives
    | Cue
    | CueEntry
    | CueName
    | Monitor
    | MonitorEntry
    | Revocations
)


def owner_key(owner: str) -> str:
    return f"owner.{owner}"


def email_key(address_sha256: str) -> str:
    return f"email.{address_sha256}"


def api_key_key(key_id: str) -> str:
    return f"key.{key_id}"


def key_entry_key(owner: str, key_id: str) -> str:
    return f"keys.{owner}.{key_id}"


def agent_key(agent_id: str) -> str:
    return f"agent.{agent_id.removeprefix('agent_')}"


def slug_key(owner: str, slug: str) -> str:
    return f"slug.{owner}.{slug}"


def gone_key(owner: str, agent_id: str) -> str:
    """Where an owner's deleted agents are found; an empty id gives the beginning that all of them share."""
    return f"gone.{owner}.{agent_id.removeprefix('agent_')}"


def account_key(account_id: str) -> str:
    return f"account.{account_id.removeprefix('sa_')}"


def account_entry_key(owner: str, account_id: str) -> str:
    """Where an owner's service accounts are listed; an empty id gives the beginning that all of them share."""
    return f"accounts.{owner}.{account_id.removeprefix('sa_')}"


def account_name_key(owner: str, name_sha256: str) -> str:
    return f"accountname.{owner}.{name_sha256}"


def backed_key(account_id: str, agent_id: str) -> str:
    """Where the agents of an account are listed; an empty agent id gives the beginning that all of them share."""
    return f"backed.{account_id.removeprefix('sa_')}.{agent_id.removeprefix('agent_')}"


def live_key(agent_id: str) -> str:
    return f"live.{agent_id.removeprefix('agent_')}"


def grant_key(giver: str, to: str) -> str:
    return f"grant.{giver}.{to}"


def secret_key(name: str) -> str:
    return f"secret.{name}"
