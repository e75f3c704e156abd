"""Which of a monitor's credentials have lost what they stand on, and what the broker is to be told of that. Pure."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from contracts.directory import account_key, agent_key, api_key_key
from contracts.monitors import EVERYBODY, LONGEST_LIFE, Credential, Monitor, Revocations, RevokedUser
from contracts.records import ApiKey

MOST_USERS: Final = 1_000
"""An account's JWT with so many of them has 100 KB and has to fit into one message. Beyond it everybody is revoked, and
whoever still may gets new credentials at once."""
SPARE: Final = timedelta(minutes=1)
"""How much longer than its credential a revocation stays: the broker's clock may be behind ours."""


def grounds(monitor: Monitor) -> frozenset[str]:
    """The directory's keys of everything this monitor's credentials stand on."""
    found: set[str] = set()
    for each in monitor.credentials:
        found |= {agent_key(agent_id) for agent_id in each.agent_ids}
        if each.key_id is not None:
            found.add(api_key_key(each.key_id))
        if each.service_account_id is not None:
            found.add(account_key(each.service_account_id))
    return frozenset(found)


def key_ends_at(key: ApiKey | None, now: datetime) -> datetime | None:
    """When an API key ceases, or has ceased, to count; None: it never does."""
    if key is None:
        return now
    ends = [instant for instant in (key.revoked_at, key.expires_at) if instant is not None]
    return min(ends, default=None)


def covers(known: Revocations, credential: Credential) -> bool:
    """Say whether this credential is among the revoked: its key may have got another one after that."""
    return any(
        each.public_key in (credential.public_key, EVERYBODY) and credential.issued_at <= each.revoked_at
        for each in known.users
    )


def with_revoked(known: Revocations, credentials: Iterable[Credential], now: datetime) -> Revocations:
    """The revocations, with these credentials covered too. Doing it again changes nothing.

    A credential may be younger than `now`: the clock of the gateway that issued it runs ahead of ours.
    """
    users = {each.public_key: each for each in known.users}
    for each in credentials:
        if not covers(known, each):
            users[each.public_key] = RevokedUser(
                public_key=each.public_key, revoked_at=max(now, each.issued_at), until=each.expires_at + SPARE
            )
    if len(users) > MOST_USERS:
        latest = max(each.revoked_at for each in users.values())
        users = {EVERYBODY: RevokedUser(public_key=EVERYBODY, revoked_at=latest, until=latest + LONGEST_LIFE + SPARE)}
    return Revocations(users=tuple(users.values()))


def without(known: Revocations, users: Collection[RevokedUser]) -> Revocations:
    return Revocations(users=tuple(each for each in known.users if each not in users))


def outlived(known: Revocations, now: datetime) -> Sequence[RevokedUser]:
    """Those behind which there is no credential any more that they could refuse."""
    return [each for each in known.users if each.until <= now]
