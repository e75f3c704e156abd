"""What the broker is told of credentials that count no more: each once, never too many, and forgotten in time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from contracts.monitors import EVERYBODY, Credential, Monitor, Revocations
from contracts.records import ApiKey
from router.revocations import MOST_USERS, SPARE, covers, grounds, key_ends_at, outlived, with_revoked, without

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
KEY = ApiKey(key_id="k" * 12, owner="max", secret_sha256="0" * 64, created_at=NOW)


def credential(name: str = "U1", issued_at: datetime = NOW) -> Credential:
    return Credential(
        public_key=name,
        key_id="k" * 12,
        agent_ids=("agent_aaaaaaaaaaaa",),
        issued_at=issued_at,
        expires_at=issued_at + timedelta(minutes=10),
    )


def test_revoking_twice_changes_nothing() -> None:
    once = with_revoked(Revocations(), [credential()], NOW)
    assert with_revoked(once, [credential()], LATER) == once
    assert [(each.public_key, each.revoked_at) for each in once.users] == [("U1", NOW)]


def test_a_credential_made_for_the_same_key_afterwards_is_revoked_anew() -> None:
    once = with_revoked(Revocations(), [credential()], NOW)
    second = credential(issued_at=LATER)
    assert not covers(once, second)
    [user] = with_revoked(once, [second], LATER).users
    assert (user.revoked_at, user.until) == (LATER, second.expires_at + SPARE)


def test_a_credential_from_a_gateway_whose_clock_is_ahead_is_covered_at_once() -> None:
    ahead = credential("ahead", issued_at=NOW + timedelta(seconds=5))
    assert covers(with_revoked(Revocations(), [ahead], NOW), ahead)
    many = [credential(f"U{number}") for number in range(MOST_USERS)]
    everybody = with_revoked(Revocations(), [*many, ahead], NOW)
    assert covers(everybody, ahead)
    assert len(everybody.users) == 1


def test_more_than_one_message_holds_become_everybody() -> None:
    full = with_revoked(Revocations(), [credential(f"U{number}") for number in range(MOST_USERS)], NOW)
    assert len(full.users) == MOST_USERS
    over = with_revoked(full, [credential("one more")], LATER)
    assert [each.public_key for each in over.users] == [EVERYBODY]
    assert all(covers(over, each) for each in (credential("U1"), credential("anybody")))
    assert not covers(over, credential("afterwards", LATER + timedelta(seconds=1)))


def test_a_revocation_is_forgotten_once_there_is_nothing_left_that_it_refuses() -> None:
    known = with_revoked(Revocations(), [credential("old"), credential("new", LATER)], LATER)
    ended = credential("old").expires_at + SPARE
    assert outlived(known, ended - timedelta(seconds=1)) == []
    assert [each.public_key for each in outlived(known, ended)] == ["old"]
    assert [each.public_key for each in without(known, outlived(known, ended)).users] == ["new"]


def test_a_key_ends_when_it_is_revoked_or_expires_whichever_comes_first() -> None:
    assert key_ends_at(KEY, NOW) is None
    assert key_ends_at(None, NOW) == NOW
    assert key_ends_at(replace(KEY, expires_at=LATER), NOW) == LATER
    assert key_ends_at(replace(KEY, expires_at=LATER, revoked_at=NOW), NOW) == NOW


def test_what_a_monitors_credentials_stand_on_are_its_keys_agents_and_accounts() -> None:
    held = (credential(), replace(credential("U2"), key_id=None, service_account_id="sa_1"))
    monitor = Monitor(monitor_id="host", owner="max", account="A", created_at=NOW, credentials=held)
    assert grounds(monitor) == {f"key.{'k' * 12}", "agent.aaaaaaaaaaaa", "account.1"}
