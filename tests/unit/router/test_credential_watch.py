"""The watch over monitors' credentials, with a directory in memory: what it looks at, when, and what it tells."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import anyio
import anyio.lowlevel
import pytest

from contracts.directory import api_key_key
from contracts.errors import Unavailable
from contracts.monitors import ACCOUNT_UNKNOWN, Credential, Monitor, Revocations, RevokedUser
from contracts.records import Agent, ApiKey, ServiceAccount
from router.credential_watch import ALL_AGAIN_S, AT_ONCE, CredentialWatch
from router.revocations import SPARE, with_revoked
from tests.builders import agent
from tests.installation import MovableClock

ACCOUNT = "AEDGE"
LIFE = timedelta(minutes=10)


@dataclass
class Directory:
    """Implements `CredentialBook` and `Revoker`; `told` is what the broker knows."""

    clock: MovableClock
    held: dict[str, Monitor] = field(default_factory=dict)
    keys: dict[str, ApiKey] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    known: Revocations = field(default_factory=Revocations)
    told: set[str] = field(default_factory=set)
    calls: int = 0
    agents_read: int = 0
    on_agent_read: Callable[[], None] = lambda: None
    on_enforce: Callable[[], None] = lambda: None

    def add(self, name: str, key: ApiKey) -> Credential:
        self.keys[key.key_id] = key
        here = self.agents.setdefault("agent_aaaaaaaaaaaa", agent(id="agent_aaaaaaaaaaaa"))
        now = self.clock.now()
        credential = Credential(
            public_key=f"U{name}", key_id=key.key_id, agent_ids=(here.id,), issued_at=now, expires_at=now + LIFE
        )
        self.held[name] = Monitor(
            monitor_id=name, owner="max", account=ACCOUNT, created_at=now, credentials=(credential,)
        )
        return credential

    async def monitors(self) -> Sequence[Monitor]:
        return list(self.held.values())

    async def monitor(self, monitor_id: str) -> Monitor | None:
        return self.held.get(monitor_id)

    async def api_key(self, key_id: str, *, fresh: bool) -> ApiKey | None:
        return self.keys.get(key_id)

    async def service_account(self, account_id: str, *, fresh: bool) -> ServiceAccount | None:
        return None

    async def agent(self, agent_id: str, *, fresh: bool) -> Agent | None:
        self.agents_read += 1
        self.on_agent_read()
        await anyio.lowlevel.checkpoint()
        return self.agents.get(agent_id)

    async def revocations(self, account: str) -> Revocations:
        return self.known

    async def revise(self, account: str, change: Callable[[Revocations], Revocations]) -> Revocations:
        self.known = change(self.known)
        return self.known

    async def enforce(self, account: str, revoked: Sequence[RevokedUser], forgotten: Collection[str]) -> None:
        self.calls += 1
        self.on_enforce()
        # Whole, as the broker takes it: whoever writes last decides.
        self.told = {each.public_key for each in revoked}


def key_of(directory: Directory, name: str = "k") -> ApiKey:
    return ApiKey(key_id=name * 12, owner="max", secret_sha256="0" * 64, created_at=directory.clock.now())


@pytest.fixture
def directory() -> Directory:
    return Directory(clock=MovableClock())


async def no_news() -> AsyncIterator[str]:
    nothing: tuple[str, ...] = ()
    for each in nothing:
        yield each


def watch(directory: Directory) -> CredentialWatch:
    return CredentialWatch(book=directory, revoker=directory, news=no_news(), clock=directory.clock)


async def test_a_key_that_counts_is_left_alone(directory: Directory) -> None:
    directory.add("host", key_of(directory))
    await watch(directory).look()
    assert (directory.told, directory.calls) == (set(), 0)


async def test_the_end_of_a_key_that_was_known_before_is_kept_to(directory: Directory) -> None:
    at = directory.clock.now() + timedelta(seconds=30)
    directory.add("host", replace(key_of(directory), expires_at=at))
    watching = watch(directory)
    await watching.look()
    assert directory.told == set()
    directory.clock.move(seconds=30)
    await watching.look()
    assert directory.told == {"Uhost"}


async def test_what_another_router_writes_meanwhile_is_not_lost_at_the_broker(directory: Directory) -> None:
    """It told the broker before us, and we wrote over it what we had read before."""
    directory.add("host", replace(key_of(directory), revoked_at=directory.clock.now()))
    other = replace(directory.add("other", key_of(directory, "o")), public_key="Uother")

    def meanwhile() -> None:
        # When we tell the broker for the last time, for all we know.
        if directory.calls == 2:
            directory.known = with_revoked(directory.known, [other], directory.clock.now())

    directory.on_enforce = meanwhile
    await watch(directory).look()
    assert directory.told == {"Uhost", "Uother"}


async def test_what_the_broker_did_not_take_is_told_again(directory: Directory) -> None:
    directory.add("host", replace(key_of(directory), revoked_at=directory.clock.now()))

    def away() -> None:
        directory.on_enforce = lambda: None
        raise Unavailable("broker_unavailable", "away")

    directory.on_enforce = away
    with pytest.raises(Unavailable):
        await watch(directory).look()
    assert directory.told == set()
    await watch(directory).look()
    assert directory.told == {"Uhost"}


async def test_a_revocation_that_refuses_nothing_any_more_is_forgotten(directory: Directory) -> None:
    directory.add("host", replace(key_of(directory), revoked_at=directory.clock.now()))
    watching = watch(directory)
    await watching.look()
    directory.clock.move(seconds=(LIFE + SPARE).total_seconds() + ALL_AGAIN_S)
    await watching.look()
    assert (directory.known, directory.told) == (Revocations(), set())


async def test_an_agent_that_is_gone_ends_every_credential_that_names_it(directory: Directory) -> None:
    for name in ("one", "two"):
        directory.add(name, key_of(directory, name[0]))
    gone = directory.agents["agent_aaaaaaaaaaaa"]
    directory.agents["agent_aaaaaaaaaaaa"] = replace(gone, deleted_at=directory.clock.now())
    await watch(directory).look()
    assert directory.told == {"Uone", "Utwo"}
    assert directory.calls == 2


async def test_a_key_that_is_revoked_is_not_kept_waiting_while_everything_is_judged(directory: Directory) -> None:
    total = AT_ONCE * 10
    for number in range(total):
        directory.add(f"host-{number}", key_of(directory))
    late = replace(key_of(directory, "l"))
    directory.add("late", late)
    tell, news = anyio.create_memory_object_stream[str](1)
    read_when_told: list[int] = []

    def revoke_while_all_are_judged() -> None:
        if directory.agents_read == 1:
            directory.keys[late.key_id] = replace(late, revoked_at=directory.clock.now())
            tell.send_nowait(api_key_key(late.key_id))

    directory.on_agent_read = revoke_while_all_are_judged
    directory.on_enforce = lambda: read_when_told.append(directory.agents_read)
    watching = CredentialWatch(book=directory, revoker=directory, news=news, clock=directory.clock)
    with tell, news, anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watching.run)
            while not read_when_told:
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    assert directory.told == {"Ulate"}
    assert read_when_told[0] <= AT_ONCE * 2 < total


async def test_the_agents_of_a_credential_whose_key_is_revoked_are_not_looked_at(directory: Directory) -> None:
    directory.add("host", replace(key_of(directory), revoked_at=directory.clock.now()))
    await watch(directory).look()
    assert (directory.told, directory.agents_read) == ({"Uhost"}, 0)


class TwoAccounts(Directory):
    """The broker knows but one of them."""

    gone: Revocations = Revocations()

    async def revocations(self, account: str) -> Revocations:
        return self.gone if account == "AGONE" else self.known

    async def revise(self, account: str, change: Callable[[Revocations], Revocations]) -> Revocations:
        if account != "AGONE":
            return await super().revise(account, change)
        self.gone = change(self.gone)
        return self.gone

    async def enforce(self, account: str, revoked: Sequence[RevokedUser], forgotten: Collection[str]) -> None:
        if account == "AGONE":
            raise Unavailable(ACCOUNT_UNKNOWN, "no such account")
        await super().enforce(account, revoked, forgotten)


async def test_an_account_the_broker_has_no_more_holds_up_no_other_and_is_forgotten_in_time() -> None:
    both = TwoAccounts(clock=MovableClock())
    old = both.add("old", key_of(both, "o"))
    both.held["old"] = replace(both.held["old"], account="AGONE")
    both.gone = with_revoked(Revocations(), [old], both.clock.now())
    here = both.add("here", key_of(both, "h"))
    both.known = with_revoked(Revocations(), [here], both.clock.now())
    with pytest.raises(Unavailable):
        await watch(both).look()
    assert both.told == {"Uhere"}
    both.clock.move(seconds=(LIFE + SPARE).total_seconds())
    await watch(both).look()
    assert (both.gone, both.known) == (Revocations(), Revocations())
