"""The log of tenants' events on JetStream: appended to by compare-and-set on the whole stream, read by owner.

    derived    one atomic batch: the first record says "the stream's last sequence is still …", the last one up to which
               sequence of the ledger everything is told
    others     a plain append: they expect nothing, and a writer that meets them only reads the last sequence again;
               what tells of transitions expects the last one of its kind, so that each is told once

Reading is by sequence, which is assigned at the append: what is committed later lies behind what was read before.
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any, Final

import anyio
import structlog
from nats.aio.msg import Msg
from pydantic_core import from_json, to_json

from contracts.errors import PostroomError, Stale, Unavailable
from contracts.subjects import Names
from contracts.tenant_events import (
    DERIVED_FAMILIES,
    NOBODY,
    EventFilter,
    EventPage,
    EventType,
    LogPlace,
    StoredEvent,
    TenantEvent,
)
from infra.jetstream_api import ApiRefused, StoredRecord, last_on, last_seq
from infra.ledger_tail import RETRY_S, Pull
from infra.nats_connection import Broker
from infra.stream_append import EXPECTED, STORE_FULL, WRONG_LAST_SEQUENCE, StreamAppend

log = structlog.get_logger(__name__)

EXPECTED_LAST: Final = "Nats-Expected-Last-Sequence"
LEDGER_SEQ: Final = "Postroom-Ledger-Seq"
READ_AT_ONCE: Final = 100
APPEND_TIMEOUT_S: Final = 5.0
FULL_RETRY_S: Final = 30.0


class EventStream:
    """Implements `router.ports.EventLog`, its `PresenceLog` and `gateway.ports.EventLog`."""

    def __init__(self, broker: Broker, names: Names, *, full_retry_s: float = FULL_RETRY_S) -> None:
        self._broker = broker
        self._names = names
        self._stream = names.events_stream
        self._appends = StreamAppend(broker, ack_timeout_s=APPEND_TIMEOUT_S)
        self._full_retry_s = full_retry_s

    # --- writing ---------------------------------------------------------------------------------------------------

    async def place(self) -> LogPlace:
        while True:
            # In this order: whatever a faster writer appends in between fails our expectation.
            end = await last_seq(self._broker, self._stream)
            found = [await self._last_of(family) for family in DERIVED_FAMILIES]
            newest = max((record for record in found if record), key=lambda record: record.seq, default=None)
            if newest is None:
                return LogPlace(last_seq=end, ledger_seq=0)
            # Up to `end` the newest is the last of its append and names the ledger's sequence; beyond it may be any.
            if newest.seq <= end:
                return LogPlace(last_seq=end, ledger_seq=_ledger_seq(newest))

    async def append(self, events: Sequence[TenantEvent], place: LogPlace) -> LogPlace:
        answer = await self._publish(events, {EXPECTED_LAST: str(place.last_seq)})
        ledger_seqs = [each.ledger_seq for each in events if each.ledger_seq is not None]
        return LogPlace(last_seq=answer, ledger_seq=max([place.ledger_seq, *ledger_seqs]))

    async def publish(self, event: TenantEvent) -> None:
        await self._publish([event], {})

    async def publish_behind(self, event: TenantEvent, after: int) -> None:
        await self._publish([event], {EXPECTED: str(after)})

    # --- reading ---------------------------------------------------------------------------------------------------

    async def newest(self, owner: str, agent_id: str, kind: EventType) -> StoredEvent | None:
        found = await last_on(self._broker, self._stream, self._names.events(owner, agent_id, kind))
        return None if found is None else StoredEvent(seq=found.seq, attributes=from_json(found.payload))

    async def last_seq(self) -> int:
        return await last_seq(self._broker, self._stream)

    async def read(self, wanted: EventFilter, *, after: int, limit: int) -> EventPage:
        subjects = self._subjects(wanted)
        newest = await last_on(self._broker, self._stream, subjects)
        if newest is None or newest.seq <= after:
            return EventPage(events=(), has_more=False)
        found: list[StoredEvent] = []
        pull = Pull(self._broker, self._stream, after, subject_filter=subjects, at_once=min(limit, READ_AT_ONCE))
        try:
            await pull.start()
            while len(found) < limit and (not found or found[-1].seq < newest.seq):
                found += map(_stored, await pull.batch())
        finally:
            await pull.stop()
        return EventPage(events=tuple(found[:limit]), has_more=found[:limit][-1].seq < newest.seq)

    async def follow(self, wanted: EventFilter, *, after: int) -> AsyncGenerator[Sequence[StoredEvent], None]:
        async for batch in self._batches(self._subjects(wanted), after):
            yield [_stored(each) for each in batch]

    async def follow_all(self, *, after: int) -> AsyncGenerator[Sequence[tuple[str, str, str]], None]:
        async for batch in self._batches(self._names.events_filter, after):
            yield [_parties(message.subject) for _, message in batch]

    async def _batches(self, subjects: str, after: int) -> AsyncGenerator[Sequence[tuple[int, Msg]], None]:
        seen = after
        while True:
            pull = Pull(self._broker, self._stream, seen, subject_filter=subjects, at_once=READ_AT_ONCE)
            try:
                await pull.start()
                while True:
                    messages = await pull.batch()
                    if messages:
                        seen = messages[-1][0]
                    yield messages
            except Unavailable as trouble:
                pull.is_broken = True
                log.warning("events_interrupted", stream=self._stream, after_seq=seen, reason=trouble.message)
            finally:
                await pull.stop()
            yield ()
            await anyio.sleep(RETRY_S)

    # --- in the broker's words -------------------------------------------------------------------------------------

    def _subjects(self, wanted: EventFilter) -> str:
        return self._names.events(wanted.owner, wanted.agent_id or "*", wanted.type or ">")

    async def _last_of(self, family: str) -> StoredRecord | None:
        return await last_on(self._broker, self._stream, self._names.events("*", "*", f"{family}.>"))

    async def _publish(self, events: Sequence[TenantEvent], expectation: dict[str, str]) -> int:
        """Store one event plainly, several as an atomic batch; the last sequence. The first bears the expectation."""
        seqs = [event.ledger_seq for event in events if event.ledger_seq is not None]
        reached = {LEDGER_SEQ: str(max(seqs))} if seqs else {}
        try:
            return await self._appends.store_together(self._addressed(events), first=expectation, last=reached)
        except ApiRefused as refusal:
            raise self._meant_by(refusal) from refusal

    def _addressed(self, events: Sequence[TenantEvent]) -> list[tuple[str, bytes]]:
        addressed: list[tuple[str, bytes]] = []
        time, written = events[0].time, _written(events[0].time)
        for event in events:
            if event.time is not time:
                time, written = event.time, _written(event.time)
            subject = self._names.events(event.owner, event.agent_id or NOBODY, event.type)
            addressed.append((subject, _encoded(event, written)))
        return addressed

    def _meant_by(self, refusal: ApiRefused) -> PostroomError:
        if refusal.err_code in WRONG_LAST_SEQUENCE:
            return Stale(self._stream, 0)
        if refusal.err_code in STORE_FULL:
            return Unavailable("event_log_full", "the log of events is full", retry_after_s=self._full_retry_s)
        return refusal


def _encoded(event: TenantEvent, time: str) -> bytes:
    """The event as CloudEvents 1.0 in JSON, without its place, which the broker knows."""
    return to_json(
        {
            "specversion": "1.0",
            "id": event.id,
            "source": f"/agents/{event.agent_id}" if event.agent_id else f"/owners/{event.owner}",
            "type": event.type.value,
            "subject": event.subject,
            "time": time,
            "datacontenttype": "application/json",
            "data": event.data,
        }
    )


def _written(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _stored(pair: tuple[int, Msg]) -> StoredEvent:
    attributes: dict[str, Any] = from_json(pair[1].data)
    return StoredEvent(seq=pair[0], attributes=attributes)


def _parties(subject: str) -> tuple[str, str, str]:
    """(owner, agent, type) of an event's subject."""
    owner, agent, family, kind = subject.split(".")[-4:]
    return owner, agent, f"{family}.{kind}"


def _ledger_seq(record: StoredRecord) -> int:
    for line in record.headers.splitlines():
        name, _, value = line.partition(b":")
        if name.decode("latin-1").lower() == LEDGER_SEQ.lower():
            return int(value)
    return 0
