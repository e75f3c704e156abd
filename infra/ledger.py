"""The ledger on JetStream: one subject per message, appended to by group commit, read from the stream's leader."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from contracts.errors import Stale
from contracts.events import Event, History, Stored
from contracts.subjects import Names
from infra.codec import decode_event, encode_event
from infra.group_commit import CommitLimits, GroupCommit
from infra.history_cache import GENESIS_SEQ, HistoryCache, Remembered
from infra.jetstream_api import StoredRecord, last_on, next_on
from infra.nats_connection import Broker
from infra.stream_append import Record


class StreamLedger:
    """Implements `router.ports.Ledger`."""

    def __init__(self, broker: Broker, commits: GroupCommit, names: Names, cache: HistoryCache) -> None:
        self._broker = broker
        self._commits = commits
        self._names = names
        self._cache = cache

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        broker: Broker,
        names: Names,
        *,
        limits: CommitLimits | None = None,
        cache: HistoryCache | None = None,
    ) -> AsyncIterator["StreamLedger"]:
        async with GroupCommit.open(broker, names.ledger_stream, limits) as commits:
            yield cls(broker, commits, names, cache or HistoryCache())

    async def append(self, ulid: str, event: Event, *, expected_seq: int) -> int:
        payload = encode_event(event)
        record = Record(subject=self._names.ledger(ulid), payload=payload, expected_seq=expected_seq)
        try:
            seq = await self._commits.append(record)
        except Stale:
            self._cache.drop(ulid)
            raise
        self._cache.extend(ulid, expected_seq, seq, payload)
        return seq

    async def load(self, ulid: str, *, fresh: bool = True) -> History | None:
        known = self._cache.get(ulid)
        if known and not fresh:
            return self._history(ulid, known)
        last = await last_on(self._broker, self._names.ledger_stream, self._names.ledger(ulid))
        if last is None:
            self._cache.drop(ulid)
            return None
        if not known or known[-1][0] != last.seq:
            known = await self._read_up_to(ulid, known, last)
        return self._history(ulid, known) if known else None

    async def _read_up_to(self, ulid: str, known: Remembered, last: StoredRecord) -> Remembered:
        """Walk the subject from the end of what is known to `last`."""
        events = list(known)
        seq = events[-1][0] if events else GENESIS_SEQ
        while seq < last.seq:
            record = await next_on(self._broker, self._names.ledger_stream, last.subject, seq + 1)
            if record is None:
                # The subject was purged while we read: the message has left the ledger.
                self._cache.drop(ulid)
                return ()
            seq = record.seq
            events.append((seq, record.payload))
        self._cache.put(ulid, tuple(events))
        return tuple(events)

    def _history(self, ulid: str, known: Remembered) -> History:
        subject = self._names.ledger(ulid)
        events = (Stored(seq=seq, event=decode_event(each, record=f"{subject}@{seq}")) for seq, each in known)
        return History(ulid=ulid, events=tuple(events))
