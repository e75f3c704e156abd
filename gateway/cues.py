"""Cues come, change, are fired on demand and go. What their schedules fire is the routers' doing."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from contracts import ids
from contracts.clock import Clock, Ids
from contracts.cues import (
    Cue,
    CueEntry,
    CueName,
    CueStatus,
    CueTrigger,
    Fire,
    Misfire,
    OnFailure,
    Transport,
    cue_entry_key,
    cue_key,
    cue_name_key,
    manual_key,
)
from contracts.directory import agent_key
from contracts.errors import Conflict, Forbidden, Invalid, Malformed, NotFound
from contracts.records import Agent, Principal, Wish
from contracts.words import Channel
from gateway.agents import enabled
from gateway.auth import authorize
from gateway.cue_wishes import checked_payload, merged, retry_of, schedule_of, wish_of
from gateway.directory import Directory, decided, owner_writes
from gateway.intake import Intake, refuse_too_far
from gateway.ports import DirectoryStore, Versioned, Write
from gateway.schemas_cues import CueChange, CueFields, FireWish, NewCue, OnFailureBody
from router.cue_messages import fire_draft
from router.cue_turns import MAX_FIRES, paused, scheduled, with_fires
from router.service import Service, Standing

MAX_PER_OWNER: Final = 1_000
_OWN_CHANNEL: Final = {Transport.WEBHOOK: Channel.WEBHOOK, Transport.WORKER: Channel.BG}


@dataclass(frozen=True, slots=True)
class NewlyMade:
    """A cue with the hidden agents made for it."""

    cue: Cue
    agents: Sequence[Agent]


class CueBook:
    """Changes of cues, each of them one transaction of the directory."""

    def __init__(
        self,
        *,
        store: DirectoryStore,
        service: Service,
        intake: Intake,
        clock: Clock,
        ids: Ids,
        check_url: Callable[[str], None],
    ) -> None:
        self._store = store
        self._directory = Directory(store)
        self._service = service
        self._intake = intake
        self._clock = clock
        self._ids = ids
        self._check_url = check_url

    # --- looking ---------------------------------------------------------------------------------------------------

    async def find(self, cue_id: str, principal: Principal, action: str) -> Versioned[Cue]:
        """Raises `NotFound` (`cue_not_found`) for what is absent and for what is somebody else's."""
        if ids.ulid_of_message(cue_id.replace("cue_", "msg_", 1)) is None:
            raise _no_cue()
        found = await self._store.get(cue_key(cue_id), Cue, fresh=True)
        if found is None or not authorize(principal, action, found.record.owner):
            raise _no_cue()
        return found

    async def of_owner(self, owner: str, status: CueStatus | None) -> list[Cue]:
        """An owner's cues, newest first."""
        found = [await self._store.get(cue_key(each), Cue) for each in reversed(await self._ids_of(owner))]
        return [each.record for each in found if each and status in (None, each.record.status)]

    async def count(self, owner: str) -> int:
        return len(await self._ids_of(owner))

    async def _ids_of(self, owner: str) -> list[str]:
        prefix = cue_entry_key(owner, "")
        return [f"cue_{key.removeprefix(prefix)}" for key in await self._store.keys(f"{prefix}*")]

    # --- making ----------------------------------------------------------------------------------------------------

    async def create(self, wanted: NewCue, principal: Principal) -> NewlyMade:
        """Raises `Conflict` (`duplicate_cue_name`), `Forbidden` (`cue_limit_exceeded`), and what refuses a field."""
        if await self.count(principal.owner) >= MAX_PER_OWNER:
            raise Forbidden("cue_limit_exceeded", f"An owner may have {MAX_PER_OWNER} cues.")
        made = await self._made(wanted, principal)
        await decided(lambda: self._create(made))
        return made

    async def _create(self, made: NewlyMade) -> None:
        cue = made.cue
        await self._refuse_taken(cue.owner, cue.name)
        await self._store.transact(
            [
                *await owner_writes(self._store, cue.owner, self._clock),
                Write(key=cue_key(cue.id), record=cue, expected_seq=0),
                Write(key=cue_entry_key(cue.owner, cue.id), record=CueEntry(cue_id=cue.id), expected_seq=0),
                _name_write(cue),
                *(Write(key=agent_key(each.id), record=each, expected_seq=0) for each in made.agents),
            ]
        )

    async def _refuse_taken(self, owner: str, name: str) -> None:
        if await self._store.get(cue_name_key(owner, name), CueName, fresh=True):
            raise Conflict("duplicate_cue_name", "This owner has another cue of this name.", field="name")

    async def _made(self, wanted: NewCue, principal: Principal) -> NewlyMade:
        now, transport = self._clock.now(), _transport(wanted)
        blank = Cue(
            id=f"cue_{self._ids.ulid()}",
            owner=principal.owner,
            key_id=principal.key_id,
            name=wanted.name,
            created_at=now,
            updated_at=now,
            transport=transport,
            agent_id="",
            schedule=schedule_of(wanted.schedule, now),
            retry=retry_of(wanted.retry),
            wish=Wish(channel=_OWN_CHANNEL.get(transport)),
        )
        cue, agents = await self._with_fields(blank, wanted)
        if transport is Transport.AGENT and cue.message is None and not cue.payload:
            raise Invalid("required", "A cue to an agent needs a message or a payload.", field="message")
        if transport is Transport.WORKER:
            own = self._hidden(cue, Channel.BG, None)
            cue, agents = replace(cue, agent_id=own.id), [*agents, own]
        return NewlyMade(cue=scheduled(cue, now), agents=agents)

    async def _with_fields(self, cue: Cue, wanted: CueFields) -> tuple[Cue, list[Agent]]:
        """The cue with what is named, and the hidden agents that takes."""
        agents: list[Agent] = []
        named: dict[str, Any] = {
            name: getattr(wanted, name)
            for name in ("description", "subject", "message", "misfire_grace_s")
            if name in wanted.model_fields_set and (name != "misfire_grace_s" or wanted.misfire_grace_s)
        }
        if wanted.misfire_policy is not None:
            named["misfire"] = Misfire(wanted.misfire_policy)
        if wanted.payload is not None:
            named["payload"] = checked_payload(wanted.payload)
        cue = replace(cue, **named, wish=wish_of(wanted, cue.wish, _OWN_CHANNEL.get(cue.transport)))
        if wanted.to is not None:
            _only_for(cue, Transport.AGENT, "to")
            receiver = await self._intake.addressee(wanted.to, _owner_of(cue), "to")
            cue = replace(cue, to=wanted.to, agent_id=receiver.id)
        if wanted.callback is not None:
            _only_for(cue, Transport.WEBHOOK, "callback")
        # The same URL keeps its secret, and what is on its way there.
        if wanted.callback is not None and wanted.callback.url != cue.callback_url:
            own = self._hooked(cue, wanted.callback.url, "callback.url")
            cue, agents = replace(cue, callback_url=wanted.callback.url, agent_id=own.id), [*agents, own]
        if wanted.on_failure is not None:
            failure, hooks = await self._on_failure(cue, wanted.on_failure)
            cue, agents = replace(cue, on_failure=failure), [*agents, *hooks]
        return cue, agents

    async def _on_failure(self, cue: Cue, wanted: OnFailureBody) -> tuple[OnFailure, Sequence[Agent]]:
        told = await self._intake.addressee(wanted.to, _owner_of(cue), "on_failure.to") if wanted.to else None
        before = cue.on_failure
        is_new = wanted.webhook is not None and wanted.webhook != before.webhook_url
        hook = self._hooked(cue, wanted.webhook, "on_failure.webhook") if wanted.webhook and is_new else None
        kept = before.hook_agent_id if wanted.webhook else None
        failure = OnFailure(
            email=wanted.email,
            webhook_url=wanted.webhook,
            hook_agent_id=hook.id if hook else kept,
            to=wanted.to,
            agent_id=told.id if told else None,
            pause=wanted.pause,
        )
        return failure, [hook] if hook else []

    def _hooked(self, cue: Cue, url: str, field: str) -> Agent:
        try:
            self._check_url(url)
        except Invalid as error:
            raise Malformed("invalid_callback_url", error.message, field=field) from None
        return self._hidden(cue, Channel.WEBHOOK, url)

    def _hidden(self, cue: Cue, channel: Channel, url: str | None) -> Agent:
        """The agent behind a cue: without a name, so no list, search or address leads to it."""
        now, agent_id = self._clock.now(), self._ids.agent()
        secret = f"whsec_{base64.b64encode(self._ids.secret(32)).decode()}" if url else None
        return Agent(
            id=agent_id,
            owner=cue.owner,
            slug=f"cue-{agent_id.removeprefix('agent_')}",
            created_at=now,
            updated_at=now,
            delivery_capabilities=(channel,),
            webhook_url=url,
            webhook_secret=secret,
            cue_id=cue.id,
        )

    # --- changing --------------------------------------------------------------------------------------------------

    async def change(self, cue_id: str, wanted: CueChange, principal: Principal) -> NewlyMade:
        """Change what is named. A cue that is resumed, or gets another schedule, begins with its next instant."""
        return await decided(lambda: self._change(cue_id, wanted, principal))

    async def _change(self, cue_id: str, wanted: CueChange, principal: Principal) -> NewlyMade:
        found = await self.find(cue_id, principal, "cue.update")
        before, now = found.record, self._clock.now()
        cue, agents = await self._with_fields(before, wanted)
        cue = replace(cue, name=wanted.name or before.name, updated_at=now)
        if wanted.retry is not None:
            cue = replace(cue, retry=retry_of(wanted.retry))
        if wanted.schedule is not None:
            cue = replace(cue, schedule=schedule_of(wanted.schedule, now, zone=before.schedule.timezone))
        writes = [Write(key=agent_key(each.id), record=each, expected_seq=0) for each in agents]
        writes += await self._retired(_own_agents(before) - _own_agents(cue))
        if _asks_receivers_again(wanted):
            writes += await self._enabled(_own_agents(before) & _own_agents(cue))
        if cue.name != before.name:
            await self._refuse_taken(cue.owner, cue.name)
            writes += [_name_write(cue), *await self._name_removal(before)]
        cue = _moved(before, cue, wanted, now)
        await self._store.transact([Write(key=cue_key(cue.id), record=cue, expected_seq=found.seq), *writes])
        return NewlyMade(cue=cue, agents=agents)

    async def _enabled(self, agent_ids: set[str]) -> list[Write]:
        """Hidden agents whose receivers were disabled, as ones that are posted to: no other way leads to them."""
        found = [await self._store.get(agent_key(each), Agent, fresh=True) for each in sorted(agent_ids)]
        return [
            Write(key=agent_key(each.record.id), record=enabled(each.record), expected_seq=each.seq)
            for each in found
            if each is not None and each.record.webhook_disabled_at is not None
        ]

    async def delete(self, cue_id: str, principal: Principal) -> Cue:
        """Delete a cue. What it has sent goes on, but for what still waits for its own URL: that ends."""
        return await decided(lambda: self._delete(cue_id, principal))

    async def _delete(self, cue_id: str, principal: Principal) -> Cue:
        found = await self.find(cue_id, principal, "cue.delete")
        cue = found.record
        entry = await self._store.get(cue_entry_key(cue.owner, cue.id), CueEntry, fresh=True)
        writes = [Write(key=cue_key(cue.id), record=None, expected_seq=found.seq)]
        if entry is not None:
            writes.append(Write(key=cue_entry_key(cue.owner, cue.id), record=None, expected_seq=entry.seq))
        writes += [*await self._name_removal(cue), *await self._retired(_own_agents(cue))]
        await self._store.transact(writes)
        return cue

    async def _name_removal(self, cue: Cue) -> list[Write]:
        key = cue_name_key(cue.owner, cue.name)
        found = await self._store.get(key, CueName, fresh=True)
        is_own = found is not None and found.record.cue_id == cue.id
        return [Write(key=key, record=None, expected_seq=found.seq)] if found and is_own else []

    async def _retired(self, agent_ids: set[str]) -> list[Write]:
        """The hidden agents that are needed no longer, as deleted ones: their ids stay taken."""
        writes, now = [], self._clock.now()
        for agent_id in sorted(agent_ids):
            found = await self._store.get(agent_key(agent_id), Agent, fresh=True)
            if found is not None:
                gone = replace(found.record, deleted_at=now, updated_at=now, webhook_url=None, webhook_secret=None)
                writes.append(Write(key=agent_key(agent_id), record=gone, expected_seq=found.seq))
        return writes

    # --- firing on demand ------------------------------------------------------------------------------------------

    async def fire(self, cue_id: str, wanted: FireWish, key: str | None, principal: Principal) -> Standing:
        """Fire now, or at `send_at`: once for each key. Raises what sending the message would."""
        cue = (await self.find(cue_id, principal, "cue.fire")).record
        now = self._clock.now()
        if wanted.send_at is not None:
            refuse_too_far(wanted.send_at, now)
        receiver = await self._receiver(cue)
        once = key or wanted.idempotency_key or self._ids.ulid()
        own_key = manual_key(cue.id, once)
        fire = Fire(
            ulid=ids.ulid_for_key(cue.owner, own_key),
            scheduled_for=max(now, wanted.send_at or now),
            decided_at=now,
            trigger=CueTrigger.MANUAL,
        )
        draft = fire_draft(
            cue,
            fire,
            receiver,
            await self._directory.live(receiver.id),
            payload=merged(cue.payload, wanted.payload_override, wanted.merge_strategy),
            key=own_key,
            wish=replace(cue.wish, send_at=wanted.send_at),
            more={"exit_criteria": wanted.exit_criteria} if wanted.exit_criteria else None,
        )
        standing = await self._service.accept(draft)
        at = standing.history.message.accepted_at
        fire = replace(fire, scheduled_for=max(at, wanted.send_at or at), decided_at=at)
        # A repetition too: the gateway that made the message may have died before it noted the fire.
        await decided(lambda: self._note(cue.id, fire, is_repeated=standing.replayed))
        return standing

    async def _receiver(self, cue: Cue) -> Agent:
        if cue.to is not None:
            return await self._intake.addressee(cue.agent_id, _owner_of(cue), "to")
        found = await self._store.get(agent_key(cue.agent_id), Agent)
        if found is None:
            raise _no_cue()
        return found.record

    async def _note(self, cue_id: str, fire: Fire, *, is_repeated: bool) -> None:
        """The message is there; the cue remembers it, unless it is gone by now."""
        found = await self._store.get(cue_key(cue_id), Cue, fresh=True)
        if found is None or any(each.ulid == fire.ulid for each in found.record.fires):
            return
        if is_repeated and len(found.record.fires) >= MAX_FIRES:
            return  # it may have been noted and forgotten, and would be counted twice
        noted = with_fires(found.record, [fire])
        await self._store.transact([Write(key=cue_key(cue_id), record=noted, expected_seq=found.seq)])


def _transport(wanted: NewCue) -> Transport:
    if wanted.transport is not None:
        transport = Transport(wanted.transport)
    elif wanted.callback is not None:
        transport = Transport.WEBHOOK
    else:
        transport = Transport.AGENT
    if transport is Transport.AGENT and wanted.to is None:
        raise Invalid("required", "A cue needs `to`, a `callback`, or the transport worker.", field="to")
    if transport is Transport.WEBHOOK and wanted.callback is None:
        raise Malformed("invalid_callback_url", "The transport webhook needs a callback.", field="callback")
    return transport


def _only_for(cue: Cue, transport: Transport, field: str) -> None:
    if cue.transport is not transport:
        raise Invalid("field_not_applicable", f"This belongs to the transport {transport.value}.", field=field)


def _moved(before: Cue, cue: Cue, wanted: CueChange, now: datetime) -> Cue:
    """Paused, resumed, or given its next instant anew. Raises `Malformed` where a resumed one has none."""
    if wanted.status == "paused":
        return paused(cue)
    is_resumed = wanted.status == "active" and before.status is not CueStatus.ACTIVE
    if not is_resumed and (wanted.schedule is None or before.status is CueStatus.PAUSED):
        return cue
    cue = scheduled(cue, now)
    if cue.status is CueStatus.ENDED:
        raise Malformed("invalid_schedule", "This cue's schedule has no instant ahead.", field="schedule")
    return replace(cue, consecutive_failures=0) if is_resumed else cue


def _asks_receivers_again(wanted: CueChange) -> bool:
    return wanted.status == "active" or wanted.callback is not None or wanted.on_failure is not None


def _owner_of(cue: Cue) -> Principal:
    """Who names a cue's agents, and may send to them: its owner, also where an admin makes a change."""
    return Principal(owner=cue.owner, key_id=cue.key_id)


def _own_agents(cue: Cue) -> set[str]:
    own = {cue.agent_id} if cue.has_own_agent else set()
    return own | ({cue.on_failure.hook_agent_id} if cue.on_failure.hook_agent_id else set())


def _name_write(cue: Cue) -> Write:
    return Write(key=cue_name_key(cue.owner, cue.name), record=CueName(cue_id=cue.id), expected_seq=0)


def _no_cue() -> NotFound:
    return NotFound("cue_not_found", "There is no such cue.")
