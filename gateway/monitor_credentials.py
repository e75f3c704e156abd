"""Monitors' credentials at the broker: who gets them for which agents, and for how long. A monitor's id has one owner.

    asked for ──▶ every agent allowed? ──▶ the monitor's record, by compare-and-set ──▶ signed

The record is written first, so that there is no credential nobody could revoke. Taking them back at the broker is the
routers' doing, who look at the record and at what it stands on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from contracts.clock import Clock
from contracts.directory import api_key_key
from contracts.errors import Conflict, Invalid, NotFound, TooMany
from contracts.ids import MONITOR_ID
from contracts.monitors import Credential, Monitor, MonitorEntry, monitor_entry_key, monitor_key
from contracts.records import Agent, ApiKey, Principal
from contracts.subjects import heartbeat, pushes_of
from contracts.words import Channel
from gateway.auth import authorize, reaches
from gateway.directory import Directory, decided
from gateway.keys import KEY_ID
from gateway.ports import CredentialTerms, DirectoryStore, MonitorSigner, Versioned, Write
from gateway.schemas_monitors import CredentialsWanted

MONITORS_PER_OWNER: Final = 1_000
CREDENTIALS_PER_MONITOR: Final = 32
"""That have not expired: a monitor renews twice within a life, so this is thirty starts of it."""
TRY_AGAIN_S: Final = 30
RENEWED_AFTER: Final = 2 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSettings:
    """How long a credential lives, and the broker's address for monitors, if they are to be told."""

    life: timedelta = timedelta(minutes=10)
    nats_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A credential that was just made. `jwt` is worth nothing without the key it was made for."""

    jwt: str
    monitor_id: str
    expires_at: datetime
    renew_after_s: float
    subjects: tuple[str, ...]


class MonitorCredentials:
    """Mints, and withdraws what was minted."""

    def __init__(
        self,
        *,
        store: DirectoryStore,
        directory: Directory,
        signer: MonitorSigner | None,
        clock: Clock,
        settings: MonitorSettings,
    ) -> None:
        self._store = store
        self._directory = directory
        self._signer = signer
        self._clock = clock
        self._settings = settings

    async def mint(self, wanted: CredentialsWanted, caller: Principal) -> Minted:
        """Credentials for all of the agents, or for none of them. Raises `Rejected` as the fields of the body say."""
        if self._signer is None:
            raise NotFound("credentials_not_available", "This installation gives out no credentials for the broker.")
        if not self._signer.is_user_key(wanted.public_key):
            raise Invalid(
                "invalid_format", "A user's public nkey is expected: U and 55 characters.", field="public_key"
            )
        agents = await self._agents(wanted.agents, caller)
        now = self._clock.now().replace(microsecond=0)
        expires_at = await self._expiry(caller, now)
        credential = Credential(
            public_key=wanted.public_key,
            key_id=caller.key_id if KEY_ID.match(caller.key_id) else None,
            agent_ids=tuple(agent.id for agent in agents),
            issued_at=now,
            expires_at=expires_at,
            service_account_id=caller.service_account_id,
        )
        account = self._signer.account
        owner = await decided(lambda: self._note(wanted.monitor_id, credential, account, caller))
        terms = _terms(wanted.monitor_id, owner, credential)
        return Minted(
            jwt=self._signer.sign(terms),
            monitor_id=wanted.monitor_id,
            expires_at=expires_at,
            renew_after_s=round((expires_at - now).total_seconds() * RENEWED_AFTER, 1),
            subjects=terms.subscribe,
        )

    async def withdraw(self, monitor_id: str, caller: Principal) -> None:
        """Withdraw everything that was minted for a monitor. Raises one and the same `NotFound`; again is the same."""
        await decided(lambda: self._withdraw(monitor_id, caller))

    # --- who and how long ------------------------------------------------------------------------------------------

    async def _agents(self, references: Sequence[str], caller: Principal) -> list[Agent]:
        found = [
            await self._directory.find(each, caller, action="monitor.connect", field="agents") for each in references
        ]
        return list({agent.id: agent for agent in found}.values())

    async def _expiry(self, caller: Principal, now: datetime) -> datetime:
        """Never later than the API key's own end, so that this end needs no revocation."""
        end = now + self._settings.life
        if not KEY_ID.match(caller.key_id):
            return end
        key = await self._store.get(api_key_key(caller.key_id), ApiKey)
        return min(end, key.record.expires_at) if key and key.record.expires_at else end

    # --- the record ------------------------------------------------------------------------------------------------

    async def _note(self, monitor_id: str, credential: Credential, account: str, caller: Principal) -> str:
        """Write it down; returns the monitor's owner."""
        found = await self._store.get(monitor_key(monitor_id), Monitor, fresh=True)
        if found is None:
            await self._create(monitor_id, credential, account, caller)
            return caller.owner
        kept = _unexpired(found.record, credential.issued_at)
        if not await self._may_be(found.record.owner, kept, caller):
            raise Conflict("monitor_id_taken", "Another monitor has this id: choose another.", field="monitor_id")
        if any(each.public_key == credential.public_key and each.withdrawn_at for each in kept):
            raise Conflict("credentials_withdrawn", "What was minted for this key is withdrawn: make a fresh key.")
        if len(kept) >= CREDENTIALS_PER_MONITOR:
            message = f"A monitor may have {CREDENTIALS_PER_MONITOR} credentials that have not expired."
            raise TooMany("too_many_credentials", message, retry_after_s=TRY_AGAIN_S)
        changed = replace(found.record, account=account, credentials=(*kept, credential))
        await self._store.transact([Write(key=monitor_key(monitor_id), record=changed, expected_seq=found.seq)])
        return changed.owner

    async def _may_be(self, owner: str, present: Sequence[Credential], caller: Principal) -> bool:
        """Whether this monitor is the caller's to be: a confined key shares an id with no agent that is not its own."""
        if not reaches(caller, owner):
            return False
        if not caller.is_confined:
            return True
        served = {agent_id for each in present for agent_id in each.agent_ids}
        return all([await self._directory.may(caller, "monitor.connect", owner, each) for each in served])

    async def _create(self, monitor_id: str, credential: Credential, account: str, caller: Principal) -> None:
        await self._make_room(caller.owner, credential.issued_at)
        record = Monitor(
            monitor_id=monitor_id,
            owner=caller.owner,
            account=account,
            created_at=credential.issued_at,
            credentials=(credential,),
        )
        entry = MonitorEntry(monitor_id=monitor_id)
        await self._store.transact(
            [
                Write(key=monitor_key(monitor_id), record=record, expected_seq=0),
                Write(key=monitor_entry_key(caller.owner, monitor_id), record=entry, expected_seq=0),
            ]
        )

    async def _make_room(self, owner: str, now: datetime) -> None:
        """Forget monitors that have been silent for long, where there seem to be too many. Raises `Conflict`."""
        prefix = monitor_entry_key(owner, "")
        ids = [each.removeprefix(prefix) for each in await self._store.keys(f"{prefix}*")]
        if len(ids) < MONITORS_PER_OWNER:
            return
        # At once, and perhaps two seconds old: forgetting one that has changed since then is Stale, and tried again.
        found = zip(ids, await self._store.get_all([monitor_key(each) for each in ids], Monitor), strict=True)
        silent = [(each, held) for each, held in found if held is None or not _unexpired(held.record, now)]
        if not silent:
            message = f"An owner may have {MONITORS_PER_OWNER} monitors with credentials."
            raise Conflict("too_many_monitors", message, limit=MONITORS_PER_OWNER)
        await self._forget(owner, *silent[0])

    async def _forget(self, owner: str, monitor_id: str, held: Versioned[Monitor] | None) -> None:
        entry_key = monitor_entry_key(owner, monitor_id)
        entry = await self._store.get(entry_key, MonitorEntry, fresh=True)
        writes = [Write(key=entry_key, record=None, expected_seq=entry.seq)] if entry else []
        writes += [Write(key=monitor_key(monitor_id), record=None, expected_seq=held.seq)] if held else []
        await self._store.transact(writes)

    async def _withdraw(self, monitor_id: str, caller: Principal) -> None:
        found = None
        if MONITOR_ID.match(monitor_id):
            found = await self._store.get(monitor_key(monitor_id), Monitor, fresh=True)
        if found is None or not authorize(caller, "monitor.connect", found.record.owner):
            raise NotFound("monitor_not_found", "There is no such monitor.")
        now = self._clock.now()
        kept = [replace(each, withdrawn_at=each.withdrawn_at or now) for each in _unexpired(found.record, now)]
        changed = replace(found.record, credentials=tuple(kept))
        if changed != found.record:
            await self._store.transact([Write(key=monitor_key(monitor_id), record=changed, expected_seq=found.seq)])


def _unexpired(monitor: Monitor, now: datetime) -> list[Credential]:
    return [each for each in monitor.credentials if now < each.expires_at]


def _terms(monitor_id: str, owner: str, credential: Credential) -> CredentialTerms:
    subjects = [pushes_of(channel, agent_id) for agent_id in credential.agent_ids for channel in Channel]
    return CredentialTerms(
        monitor_id=monitor_id,
        owner=owner,
        public_key=credential.public_key,
        subscribe=tuple(subjects),
        publish=(heartbeat(monitor_id),),
        issued_at=credential.issued_at,
        expires_at=credential.expires_at,
    )
