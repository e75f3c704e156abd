"""Who exists, under which name: references resolved for a caller, and the way every change of the directory is made.

Reads come from the store's memory, at most two seconds old. A change reads afresh, decides, and writes all of its keys
at once by compare-and-set; when somebody else was faster it decides again on what is there now.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from contracts.clock import Clock, Ids
from contracts.directory import (
    KeyEntry,
    LiveSessions,
    Owner,
    SlugEntry,
    agent_key,
    api_key_key,
    backed_key,
    key_entry_key,
    live_key,
    owner_key,
    slug_key,
)
from contracts.errors import Stale, Unavailable
from contracts.records import Agent, ApiKey, LiveSession, Principal
from gateway.address import Address, ById, BySlug, parse_address
from gateway.auth import authorize, reaches
from gateway.keys import KEY_BYTES, KeyText, new_key, parse_key
from gateway.permissions import key_is_confined
from gateway.ports import DirectoryStore, Write
from gateway.problems import agent_not_found

ROUNDS: Final = 8
"""How often a change starts again when others are faster; each round somebody else got something done."""

T = TypeVar("T")


class Directory:
    """Read access for one gateway: references to agents, and their live sessions."""

    def __init__(self, store: DirectoryStore) -> None:
        self._store = store

    async def find(self, reference: str, principal: Principal, *, action: str, field: str = "to") -> Agent:
        """The agent a reference names, if the caller may do `action` to it.

        Raises `Invalid` for what is no reference, and one and the same `NotFound` for what is absent, deleted or
        somebody else's.
        """
        return await self.resolve(parse_address(reference, field=field), principal, action=action)

    async def resolve(
        self, address: Address, principal: Principal, *, action: str, fresh: bool = False, with_deleted: bool = False
    ) -> Agent:
        agent = await self._agent(address, principal, fresh=fresh)
        if agent is None or not _is_open(agent, principal, action):
            raise agent_not_found()
        if agent.deleted_at is not None and not with_deleted:
            raise agent_not_found()
        return agent

    async def find_all(self, agent_ids: Sequence[str], principal: Principal, *, action: str) -> dict[str, Agent]:
        """Those of many agents, by their ids, to whom the caller may do `action`; looked up together."""
        found = await self._store.get_all([agent_key(each) for each in agent_ids], Agent)
        agents = [each.record for each in found if each and each.record.deleted_at is None]
        return {each.id: each for each in agents if _is_open(each, principal, action)}

    async def narrowed(self, reference: str | None, caller: Principal, *, action: str, field: str) -> Agent | None:
        """The one agent a list is about: the one it names, or the only one its caller acts for. None: all of the owner.

        Raises `Forbidden` (`key_is_confined`) for a caller that acts for several, or none, and names none.
        """
        if reference is not None:
            return await self.find(reference, caller, action=action, field=field)
        own = await self.confines(caller, action)
        if own is None:
            return None
        if len(own) != 1:
            raise key_is_confined()
        return own[0]

    async def confines(self, caller: Principal, action: str) -> list[Agent] | None:
        """The only agents to whom the caller may do `action`, by slug; None for one who may to all of its owner's."""
        if authorize(caller, action, caller.owner):
            return None
        agent_ids = [caller.agent_id] if caller.agent_id else await self._backed_by(caller.service_account_id)
        found = await self._store.get_all([agent_key(each) for each in agent_ids], Agent)
        agents = [each.record for each in found if each and each.record.deleted_at is None]
        own = [each for each in agents if authorize(caller, action, each.owner, each)]
        return sorted(own, key=lambda each: each.slug)

    async def _backed_by(self, account_id: str | None) -> list[str]:
        if account_id is None:
            return []
        prefix = backed_key(account_id, "")
        return [f"agent_{key.removeprefix(prefix)}" for key in await self._store.keys(f"{prefix}*")]

    async def may(self, principal: Principal, action: str, owner: str, agent_id: str) -> bool:
        """`authorize` where only the agent's id is known; it is looked up only for whom that matters."""
        if not principal.is_confined:
            return authorize(principal, action, owner)
        found = await self._store.get(agent_key(agent_id), Agent)
        return authorize(principal, action, owner, found.record if found else None)

    async def sessions(self, agent_id: str) -> tuple[LiveSession, ...]:
        """All sessions on record, the detached ones as well, oldest first."""
        found = await self._store.get(live_key(agent_id), LiveSessions)
        return found.record.sessions if found else ()

    async def attached(self, agent_id: str) -> tuple[LiveSession, ...]:
        """Those of them that nobody has noted the end of, of all transports."""
        return tuple(session for session in await self.sessions(agent_id) if session.is_attached)

    async def live(self, agent_id: str) -> tuple[LiveSession, ...]:
        """The attached ones that pushes go to."""
        return tuple(each for each in await self.sessions(agent_id) if each.is_live and each.is_attached)

    async def _agent(self, address: Address, principal: Principal, *, fresh: bool) -> Agent | None:
        agent_id = await self._id(address, principal, fresh=fresh)
        found = await self._store.get(agent_key(agent_id), Agent, fresh=fresh) if agent_id else None
        return found.record if found else None

    async def _id(self, address: Address, principal: Principal, *, fresh: bool) -> str | None:
        match address:
            case ById(agent_id):
                return agent_id
            case BySlug(slug, named):
                owner = principal.owner if named is None else named
                # Somebody else's namespace is not even looked at, so its names cannot be told apart by time.
                if not reaches(principal, owner):
                    return None
                entry = await self._store.get(slug_key(owner, slug), SlugEntry, fresh=fresh)
                return entry.record.agent_id if entry else None


def _is_open(agent: Agent, principal: Principal, action: str) -> bool:
    """Whether somebody may do this to an agent that has a name of its own."""
    return agent.cue_id is None and authorize(principal, action, agent.owner, agent)


async def decided(change: Callable[[], Awaitable[T]], *, rounds: int = ROUNDS) -> T:
    """Run a change (read, decide, transact) again while others are faster; `Unavailable` when they always are."""
    for _ in range(rounds):
        try:
            return await change()
        except Stale:
            continue
    raise Unavailable("contended", "Too many callers change this at once.")


async def owner_writes(store: DirectoryStore, owner: str, clock: Clock) -> list[Write]:
    """What it takes for `owner` to exist: nothing when it does."""
    if await store.get(owner_key(owner), Owner, fresh=True):
        return []
    return [Write(key=owner_key(owner), record=Owner(owner=owner, created_at=clock.now()), expected_seq=0)]


async def ensure_admin_key(store: DirectoryStore, clock: Clock, key_text: str, *, owner: str = "local") -> ApiKey:
    """Make sure that this admin key counts: its record is stored under its own id, once.

    Raises `ValueError` for a text that is no key, or whose id is taken by another secret or a revoked key.
    """
    key = parse_key(key_text.strip())
    if key is None:
        raise ValueError("the bootstrap file does not hold an API key")
    return await decided(lambda: _ensure(store, clock, key, owner))


def fresh_key_text(ids: Ids) -> str:
    """A new key nobody has stored yet."""
    return new_key(ids.secret(KEY_BYTES)).text


async def _ensure(store: DirectoryStore, clock: Clock, key: KeyText, owner: str) -> ApiKey:
    found = await store.get(api_key_key(key.key_id), ApiKey, fresh=True)
    if found is not None:
        if found.record.secret_sha256 != key.secret_sha256 or found.record.revoked_at is not None:
            raise ValueError("the bootstrap key is revoked, or its id belongs to another key")
        return found.record
    record = ApiKey(
        key_id=key.key_id,
        owner=owner,
        secret_sha256=key.secret_sha256,
        created_at=clock.now(),
        name="bootstrap",
        admin=True,
    )
    await store.transact([*await owner_writes(store, owner, clock), *key_writes(record)])
    return record


def key_writes(record: ApiKey) -> list[Write]:
    """What makes a new key exist: the key, and its place among its owner's keys."""
    entry = KeyEntry(key_id=record.key_id)
    return [
        Write(key=api_key_key(record.key_id), record=record, expected_seq=0),
        Write(key=key_entry_key(record.owner, record.key_id), record=entry, expected_seq=0),
    ]
