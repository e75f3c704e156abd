"""The directory's bucket: typed records under keys, changed by compare-and-set, remembered for two seconds at most."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

import structlog
from nats.aio.msg import Msg

from contracts.directory import DirectoryRecord, LiveSessions, account_key, agent_key, live_key
from contracts.errors import Stale, Unavailable
from contracts.records import Agent, LiveSession, ServiceAccount
from contracts.subjects import Names
from gateway.ports import Versioned, Write
from infra.codec import Undecodable, decode_record, encode_record
from infra.directory_cache import DirectoryCache, Entry
from infra.group_commit import CommitLimits, GroupCommit
from infra.jetstream_api import StoredRecord, last_on, last_on_each, subjects
from infra.nats_connection import Broker
from infra.stream_append import Record

log = structlog.get_logger(__name__)

T = TypeVar("T", bound=DirectoryRecord)

TTL_S: Final = 2.0
"""The promise of `gateway.ports.DirectoryStore.get`: what a lost broadcast can cost."""
DELETION: Final = {"KV-Operation": "DEL"}
DELETION_MARKS: Final = (b"KV-Operation: DEL", b"KV-Operation: PURGE")
CHANGE_ATTEMPTS: Final = 10


class BucketDirectory:
    """Implements `gateway.ports.DirectoryStore`. Made by `BucketDirectory.open`."""

    def __init__(
        self,
        broker: Broker,
        commits: GroupCommit,
        names: Names,
        *,
        monotonic: Callable[[], float],
        max_entries: int,
    ) -> None:
        self._broker = broker
        self._commits = commits
        self._names = names
        self._cache = DirectoryCache(self._read, monotonic=monotonic, ttl_s=TTL_S, max_entries=max_entries)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        broker: Broker,
        names: Names,
        *,
        limits: CommitLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        max_entries: int = 50_000,
    ) -> AsyncIterator["BucketDirectory"]:
        async with GroupCommit.open(broker, names.directory_stream, limits) as commits:
            store = cls(broker, commits, names, monotonic=monotonic, max_entries=max_entries)
            changes = await broker.subscribe(names.directory_changed, store._forget, on_gap=store._cache.clear)
            try:
                yield store
            finally:
                await broker.unsubscribe(changes)

    async def get(self, key: str, kind: type[T], *, fresh: bool = False) -> Versioned[T] | None:
        entry = await (self._cache.read(key) if fresh else self._cache.get(key))
        return _versioned(entry, kind, key)

    async def get_all(self, keys: Sequence[str], kind: type[T]) -> list[Versioned[T] | None]:
        entries = await self._cache.get_all(keys)
        return [_versioned(entry, kind, key) for key, entry in zip(keys, entries, strict=True)]

    async def transact(self, writes: Sequence[Write]) -> None:
        if not writes:
            return
        try:
            await self._write(writes)
        except Stale as stale:
            # The caller knows keys, not subjects.
            raise Stale(stale.record.removeprefix(self._names.directory_key("")), stale.expected_seq) from stale
        finally:
            # Also when the outcome is unknown: it may have been written.
            await self._tell_changed([write.key for write in writes])

    async def keys(self, pattern: str) -> list[str]:
        prefix = self._names.directory_key("")
        written = await subjects(self._broker, self._names.directory_stream, self._names.directory_key(pattern))
        records = await last_on_each(self._broker, self._names.directory_stream, written)
        return sorted(
            subject.removeprefix(prefix)
            for subject, record in zip(written, records, strict=True)
            if _entry(record).payload is not None
        )

    async def records(self, pattern: str, kind: type[T]) -> list[T]:
        """The records of all existing keys that match; one that cannot be read is left out, and logged."""
        written = await subjects(self._broker, self._names.directory_stream, self._names.directory_key(pattern))
        found = []
        for subject, record in zip(
            written, await last_on_each(self._broker, self._names.directory_stream, written), strict=True
        ):
            payload = _entry(record).payload
            try:
                found += [] if payload is None else [decode_record(kind, payload, record=subject)]
            except Undecodable as error:
                log.exception("record_unreadable", record=subject, exc_info=error)
        return found

    async def _write(self, writes: Sequence[Write]) -> None:
        try:
            await self._commits.commit_together([self._record(write, write.expected_seq) for write in writes])
        except Stale:
            await self._commits.commit_together(await self._over_deletions(writes))

    async def _read(self, keys: Sequence[str]) -> Sequence[Entry]:
        stream, named = self._names.directory_stream, [self._names.directory_key(key) for key in keys]
        if len(named) == 1:
            return [_entry(await last_on(self._broker, stream, named[0]))]
        return [_entry(record) for record in await last_on_each(self._broker, stream, named)]

    async def _over_deletions(self, writes: Sequence[Write]) -> list[Record]:
        """The same writes for keys that were deleted: "must not exist" then means "still at the deletion's mark".

        Raises `Stale` when that is not what stood in the way.
        """
        records, is_hopeless = [], True
        for write in writes:
            expected_seq = write.expected_seq
            if expected_seq == 0:
                [entry] = await self._read([write.key])
                expected_seq = entry.seq if entry.payload is None else 0
                is_hopeless = is_hopeless and expected_seq == 0
            records.append(self._record(write, expected_seq))
        if is_hopeless:
            raise Stale(writes[0].key, writes[0].expected_seq)
        return records

    def _record(self, write: Write, expected_seq: int) -> Record:
        return Record(
            subject=self._names.directory_key(write.key),
            payload=b"" if write.record is None else encode_record(write.record),
            expected_seq=expected_seq,
            headers=DELETION if write.record is None else None,
        )

    async def _tell_changed(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._cache.drop(key)
        try:
            for key in keys:
                await self._broker.publish(self._names.directory_changed, key.encode())
        except Unavailable as error:
            log.warning("directory_change_untold", keys=list(keys), reason=error.message)

    def _forget(self, message: Msg) -> None:
        self._cache.drop(message.data.decode("utf-8", "replace"))


def _versioned(entry: Entry, kind: type[T], key: str) -> Versioned[T] | None:
    if entry.payload is None:
        return None
    known: Versioned[T] | None = entry.value
    if known is None or not isinstance(known.record, kind):
        known = entry.value = Versioned(record=decode_record(kind, entry.payload, record=key), seq=entry.seq)
    return known


def _entry(record: StoredRecord | None) -> Entry:
    if record is None:
        return Entry(seq=0, payload=None)
    is_deleted = any(mark in record.headers for mark in DELETION_MARKS)
    return Entry(seq=record.seq, payload=None if is_deleted else record.payload)


class DirectoryReader:
    """Implements `router.ports.Directory` on top of the store."""

    def __init__(self, store: BucketDirectory) -> None:
        self._store = store

    async def agent(self, agent_id: str) -> Agent | None:
        found = await self._store.get(agent_key(agent_id), Agent)
        return found.record if found else None

    async def service_account(self, account_id: str) -> ServiceAccount | None:
        found = await self._store.get(account_key(account_id), ServiceAccount)
        return found.record if found else None

    async def live_sessions(self, agent_id: str) -> tuple[LiveSession, ...]:
        return tuple(session for session in await self.attached(agent_id) if session.is_live)

    async def attached(self, agent_id: str) -> tuple[LiveSession, ...]:
        found = await self._store.get(live_key(agent_id), LiveSessions)
        return tuple(session for session in found.record.sessions if session.is_attached) if found else ()

    async def disable_webhook(self, agent: Agent, at: datetime, reason: str) -> bool:
        def disabled(now: Agent) -> Agent | None:
            if now.webhook_disabled_at is not None:
                return None
            return replace(now, webhook_disabled_at=at, webhook_disabled_reason=reason)

        return await self._change(agent, disabled)

    async def note_webhook(self, agent: Agent, failing_since: datetime | None) -> None:
        def noted(now: Agent) -> Agent | None:
            # Since the first of several that failed together; several routers may say so.
            is_known = (now.webhook_failing_since is None) == (failing_since is None)
            return None if is_known else replace(now, webhook_failing_since=failing_since)

        await self._change(agent, noted)

    async def _change(self, seen: Agent, change: Callable[[Agent], Agent | None]) -> bool:
        """Change an agent whose webhook URL is still the one that was seen; False when there is nothing to change."""
        key = agent_key(seen.id)
        for _ in range(CHANGE_ATTEMPTS):
            found = await self._store.get(key, Agent, fresh=True)
            if found is None or found.record.webhook_url != seen.webhook_url:
                return False
            changed = change(found.record)
            if changed is None:
                return False
            try:
                await self._store.transact([Write(key=key, record=changed, expected_seq=found.seq)])
            except Stale:
                log.debug("webhook_note_retried", agent_id=seen.id)
            else:
                return True
        raise Unavailable("directory_contended", "the agent's record changes too often", agent_id=seen.id)
