"""Agents come, change and go. A slug is unique because its key is created with the agent and never overwritten."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from contracts.clock import Clock, Ids
from contracts.directory import LiveSessions, SlugEntry, agent_key, backed_key, gone_key, live_key, slug_key
from contracts.errors import Conflict, Forbidden, Invalid
from contracts.records import Agent, Principal
from contracts.words import AgentStatus, AttestationLevel, Channel, StatedPresence
from gateway.accounts import slug_of
from gateway.address import RESERVED_SLUGS, Address, parse_address, refuse_reserved
from gateway.auth import authorize, require, require_scope
from gateway.directory import Directory, decided, owner_writes
from gateway.ports import DirectoryStore, Versioned, Write
from gateway.problems import agent_not_found
from gateway.schemas_agents import AgentChange, NewAgent
from gateway.service_accounts import find_account, held

CheckUrl = Callable[[str], None]
MAX_DELETED_SHOWN: Final = 500
CREATE_ROUNDS: Final = 50
"""A fleet that registers itself makes its agents under one service account at once, and each of them writes it."""
_STATED: Final = frozenset(each.value for each in StatedPresence)
SAID_OF_ITSELF: Final = frozenset(
    {
        *("display_name", "profile", "description", "kind", "capabilities", "config", "metadata"),
        *("status", "stated_presence"),
    }
)
"""The fields of a change that a service account may make to its own agents; all others take `agent.direct`."""
NO_OLD_SECRET: Final[dict[str, Any]] = {"webhook_old_secret": None, "webhook_old_until": None}


class Agents:
    """Changes of agents and their slugs."""

    def __init__(self, *, store: DirectoryStore, clock: Clock, ids: Ids, check_url: CheckUrl) -> None:
        self._store = store
        self._directory = Directory(store)
        self._clock = clock
        self._ids = ids
        self._check_url = check_url

    async def create(self, new: NewAgent, principal: Principal) -> Agent:
        """Register an agent. Raises `Conflict` (`slug_taken`), `Invalid` (`reserved_slug` and others)."""
        owner = new.owner or principal.owner
        if owner != principal.owner:
            require(principal, "owner.assign", owner)
        if new.webhook_url is not None:
            require_scope(principal, "message.read", owner)
        if new.slug is not None:
            refuse_reserved(new.slug)
            agent = self._new(new, owner, new.slug)
            await decided(lambda: self._create(agent), rounds=CREATE_ROUNDS)
            return agent
        return await decided(lambda: self._create_named(new, owner))

    async def change(self, reference: str, change: AgentChange, principal: Principal) -> tuple[Agent, bool]:
        """Change an agent; the second answer says whether it has a webhook secret nobody has been shown yet."""
        if "slug" in change.model_fields_set:
            refuse_reserved(change.slug)
        address = parse_address(reference, field="ref")
        return await decided(lambda: self._change(address, change, principal))

    async def delete(self, reference: str, principal: Principal) -> Agent:
        """Delete an agent: its name is free at once, its id stays taken."""
        address = parse_address(reference, field="ref")
        return await decided(lambda: self._delete(address, principal))

    async def renew_webhook_secret(self, reference: str, principal: Principal) -> Agent:
        """Give an agent's webhook another secret. Raises `Conflict` (`no_webhook_url`)."""
        address = parse_address(reference, field="ref")
        return await decided(lambda: self._renew_webhook_secret(address, principal))

    async def of_owner(
        self, owner: str, *, after: str, limit: int, among: Sequence[Agent] | None = None
    ) -> tuple[list[Agent], str | None]:
        """One page of an owner's agents by slug, of all or of these, and the slug to go on after."""
        if among is not None:
            left = [agent for agent in among if agent.slug > after]
            return left[:limit], left[limit - 1].slug if len(left) > limit else None
        rest = [slug for slug in await self._slugs(owner) if slug > after]
        return await self._named(owner, rest[:limit]), rest[limit - 1] if len(rest) > limit else None

    async def backed_by(self, account_id: str) -> list[Agent]:
        """The agents of a service account, by slug."""
        prefix = backed_key(account_id, "")
        names = [key.removeprefix(prefix) for key in await self._store.keys(f"{prefix}*")]
        found = await self._store.get_all([agent_key(name) for name in names], Agent)
        agents = [each.record for each in found if each and each.record.deleted_at is None]
        return sorted(agents, key=lambda agent: agent.slug)

    async def count(self, owner: str) -> int:
        return len(await self._slugs(owner))

    async def deleted(self, owner: str) -> list[Agent]:
        """An owner's deleted agents, the last one first: of `MAX_DELETED_SHOWN` of them at most."""
        prefix = gone_key(owner, "")
        names = [key.removeprefix(prefix) for key in await self._store.keys(f"{prefix}*")][:MAX_DELETED_SHOWN]
        found = await self._store.get_all([agent_key(name) for name in names], Agent)
        return sorted((each.record for each in found if each), key=lambda agent: agent.updated_at, reverse=True)

    async def _slugs(self, owner: str) -> list[str]:
        prefix = slug_key(owner, "")
        return [key.removeprefix(prefix) for key in await self._store.keys(f"{prefix}*")]

    # --- the steps of a change -------------------------------------------------------------------------------------

    async def _create_named(self, new: NewAgent, owner: str) -> Agent:
        """Under a name made from the display name, with four digits more where that is taken."""
        slug = slug_of(new.named.display_name or "", otherwise="agent")
        if slug in RESERVED_SLUGS or await self._store.get(slug_key(owner, slug), SlugEntry, fresh=True):
            slug = f"{slug}-{self._ids.secret(2).hex()}"
        agent = self._new(new, owner, slug)
        await self._create(agent)
        return agent

    async def _create(self, agent: Agent) -> None:
        if await self._store.get(slug_key(agent.owner, agent.slug), SlugEntry, fresh=True):
            raise _taken()
        await self._store.transact(
            [
                *await owner_writes(self._store, agent.owner, self._clock),
                _slug_write(agent),
                Write(key=agent_key(agent.id), record=agent, expected_seq=0),
                *await self._backing(agent),
            ]
        )

    async def _change(self, address: Address, change: AgentChange, principal: Principal) -> tuple[Agent, bool]:
        found = await self._current(address, principal, "agent.update")
        before, now = found.record, self._clock.now()
        _refuse_directing(before, change, principal)
        after = self._changed(before, change, now)
        _refuse_waking(before, after, principal)
        writes = [Write(key=agent_key(after.id), record=after, expected_seq=found.seq)]
        if after.slug != before.slug:
            if await self._store.get(slug_key(after.owner, after.slug), SlugEntry, fresh=True):
                raise _taken()
            writes += [_slug_write(after), await self._slug_removal(before)]
        await self._store.transact(writes)
        return after, after.webhook_secret is not None and after.webhook_secret != before.webhook_secret

    async def _delete(self, address: Address, principal: Principal) -> Agent:
        found = await self._current(address, principal, "agent.delete")
        now = self._clock.now()
        gone = replace(
            found.record, deleted_at=now, updated_at=now, webhook_url=None, webhook_secret=None, **NO_OLD_SECRET
        )
        writes = [
            Write(key=agent_key(gone.id), record=gone, expected_seq=found.seq),
            await self._slug_removal(found.record),
            Write(key=gone_key(gone.owner, gone.id), record=SlugEntry(agent_id=gone.id), expected_seq=0),
            *await self._backing_removal(gone),
        ]
        live = await self._store.get(live_key(gone.id), LiveSessions, fresh=True)
        if live is not None:
            writes.append(Write(key=live_key(gone.id), record=None, expected_seq=live.seq))
        await self._store.transact(writes)
        return gone

    async def _renew_webhook_secret(self, address: Address, principal: Principal) -> Agent:
        found = await self._current(address, principal, "webhook.update")
        if found.record.webhook_url is None:
            raise Conflict("no_webhook_url", "This agent has no webhook URL.")
        secret, now = self._new_secret(), self._clock.now()
        renewed = replace(found.record, webhook_secret=secret, updated_at=now, **NO_OLD_SECRET)
        await self._store.transact([Write(key=agent_key(renewed.id), record=renewed, expected_seq=found.seq)])
        return renewed

    async def _current(self, address: Address, principal: Principal, action: str) -> Versioned[Agent]:
        agent = await self._directory.resolve(address, principal, action=action, fresh=True)
        found = await self._store.get(agent_key(agent.id), Agent, fresh=True)
        if found is None or found.record.deleted_at is not None:
            raise agent_not_found()
        return found

    async def _slug_removal(self, agent: Agent) -> Write:
        key = slug_key(agent.owner, agent.slug)
        entry = await self._store.get(key, SlugEntry, fresh=True)
        if entry is None or entry.record.agent_id != agent.id:
            raise agent_not_found()
        return Write(key=key, record=None, expected_seq=entry.seq)

    async def _backing(self, agent: Agent) -> list[Write]:
        """What makes an account the one behind a new agent; the account is written as it is, see `held`."""
        if agent.service_account_id is None:
            return []
        account = await find_account(self._store, agent.owner, agent.service_account_id)
        key = backed_key(account.record.id, agent.id)
        return [held(account), Write(key=key, record=SlugEntry(agent_id=agent.id), expected_seq=0)]

    async def _backing_removal(self, agent: Agent) -> list[Write]:
        if agent.service_account_id is None:
            return []
        key = backed_key(agent.service_account_id, agent.id)
        entry = await self._store.get(key, SlugEntry, fresh=True)
        return [Write(key=key, record=None, expected_seq=entry.seq)] if entry else []

    async def _named(self, owner: str, slugs: Sequence[str]) -> list[Agent]:
        entries = await self._store.get_all([slug_key(owner, slug) for slug in slugs], SlugEntry)
        found = await self._store.get_all([agent_key(each.record.agent_id) for each in entries if each], Agent)
        return [each.record for each in found if each and each.record.deleted_at is None]

    # --- the pure part ---------------------------------------------------------------------------------------------

    def _new(self, new: NewAgent, owner: str, slug: str) -> Agent:
        now = self._clock.now()
        agent = Agent(
            id=self._ids.agent(),
            owner=owner,
            slug=slug,
            created_at=now,
            updated_at=now,
            delivery_capabilities=new.channels,
            preferred_contact=Channel(new.preferred_contact) if new.preferred_contact else None,
            heartbeat_age_sec=new.heartbeat_age_sec,
            claim_window_s=new.claim_window_s,
            attestation=AttestationLevel(new.attestation),
            status=AgentStatus(new.status),
            external_addressable=new.external_addressable,
            metadata=new.metadata,
            profile=new.named,
            service_account_id=new.service_account_id,
            description=new.description,
            kind=new.kind,
            capabilities=new.capabilities,
            config=new.config,
        )
        return self._with_webhook(_checked(agent), new.webhook_url)

    def _changed(self, agent: Agent, change: AgentChange, now: datetime) -> Agent:
        fields = _fields_of(change)
        has_url, url = "webhook_url" in fields, fields.pop("webhook_url", None)
        if "display_name" in fields:
            named = fields.get("profile", agent.profile)
            fields["profile"] = replace(named, display_name=fields.pop("display_name"))
        agent = _checked(replace(agent, updated_at=now, **fields))
        return self._with_webhook(agent, url) if has_url else agent

    def _with_webhook(self, agent: Agent, url: str | None) -> Agent:
        if url is None:
            return replace(enabled(agent), webhook_url=None, webhook_secret=None, **NO_OLD_SECRET)
        try:
            self._check_url(url)
        except Invalid as error:
            facts = {**error.facts, "field": "webhook_url"}
            raise Invalid(error.code, error.message, **facts) from None
        secret = agent.webhook_secret or self._new_secret()
        return replace(enabled(agent), webhook_url=url, webhook_secret=secret)

    def _new_secret(self) -> str:
        return f"whsec_{base64.b64encode(self._ids.secret(32)).decode()}"


def _refuse_directing(agent: Agent, change: AgentChange, principal: Principal) -> None:
    """Whoever may say what an agent is may not therefore say under which name, how and to where it is sent to."""
    if change.model_fields_set - SAID_OF_ITSELF:
        require_scope(principal, "agent.direct", agent.owner, agent)
    if change.webhook_url is not None:
        # Whoever may not read an agent's messages does not have them posted to where he can.
        require_scope(principal, "message.read", agent.owner, agent)


def _refuse_waking(before: Agent, after: Agent, principal: Principal) -> None:
    """Whoever may change an agent may not therefore undo that somebody put it out of service."""
    is_woken = before.status is AgentStatus.INACTIVE and after.status is AgentStatus.ACTIVE
    if is_woken and not authorize(principal, "agent.activate", after.owner, after):
        message = "The agent was put out of service by somebody who may; this key may not undo that."
        raise Forbidden("inactive_is_not_yours_to_undo", message)


def enabled(agent: Agent) -> Agent:
    """With another URL, the same one set anew, or because its owner says so: nothing is held against its receiver."""
    return replace(agent, webhook_disabled_at=None, webhook_disabled_reason=None, webhook_failing_since=None)


def _fields_of(change: AgentChange) -> dict[str, Any]:
    """What is to change, by the names of the records."""
    fields = {name: _as_record(name, getattr(change, name)) for name in change.model_fields_set}
    if isinstance(fields.get("status"), StatedPresence):
        fields["stated_presence"] = fields.pop("status")
    return fields


def _as_record(name: str, value: Any) -> Any:
    """A changed field in the words of the records."""
    match name:
        case "delivery_capabilities":
            return tuple(map(Channel, value))
        case "preferred_contact":
            return Channel(value) if value else None
        case "attestation":
            return AttestationLevel(value)
        case "status":
            return StatedPresence(value) if value in _STATED else AgentStatus(value)
        case "stated_presence":
            return StatedPresence(value) if value else None
        case "profile":
            return value.profile()
        case _:
            return value


def _checked(agent: Agent) -> Agent:
    preferred = agent.preferred_contact
    if preferred is not None and preferred not in agent.delivery_capabilities:
        message = "preferred_contact has to be one of the delivery_capabilities."
        raise Invalid("preferred_not_declared", message, field="preferred_contact")
    return agent


def _slug_write(agent: Agent) -> Write:
    return Write(key=slug_key(agent.owner, agent.slug), record=SlugEntry(agent_id=agent.id), expected_seq=0)


def _taken() -> Conflict:
    return Conflict("slug_taken", "This owner has another agent of this name.", field="slug")
