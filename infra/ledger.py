"""The ledger on JetStream: one subject per message, appended to by group commit, read from the stream's leader."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from contracts.errors import Stale
from contracts.events import Event, History, Stored
from contracts.subjects import Names
from infra.codec import decode_event, encode_event
from infra.group_commit import CommitLimits, GroupCommit
from infra.history_cache import HistoryCache
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
        self._cache.extend(ulid, expected_seq, Stored(seq=seq, event=event), len(payload))
        return seq

    async def load(self, ulid: str, *, fresh: bool = True) -> History | None:
        known = self._cache.get(ulid)
        if known is not None and not fresh:
            return known
        last = await last_on(self._broker, self._names.ledger_stream, self._names.ledger(ulid))
        if last is None:
            self._cache.drop(ulid)
            return None
        if known is not None and known.head_seq == last.seq:
            return known
        return await self._read_up_to(ulid, known, last)

    async def _read_up_to(self, ulid: str, known: History | None, last: StoredRecord) -> History | None:
        """Walk the subject from the end of what is known to `last`."""
        events = list(known.events) if known else []
        n_bytes = self._cache.size_of(ulid) if known else 0
        seq = events[-1].seq if events else History.GENESIS_SEQ
        while seq < last.seq:
            record = await next_on(self._broker, self._names.ledger_stream, last.subject, seq + 1)
            if record is None:
                # The subject was purged while we read: the message has left the ledger.
                self._cache.drop(ulid)
                return None
            seq = record.seq
            events.append(Stored(seq=seq, event=decode_event(record.payload, record=f"{record.subject}@{seq}")))
            n_bytes += len(record.payload)
        history = History(ulid=ulid, events=tuple(events))
        self._cache.put(history, n_bytes)
        return history
