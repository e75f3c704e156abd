"""The log of tenants' events on JetStream: appended to by compare-and-set on the whole stream, read by owner.

    derived    one atomic batch, first record "the stream's last sequence is still …"; each names its ledger sequence
    others     a plain append: they expect nothing, and a writer that meets them only reads the last sequence again

Reading is by sequence, which is assigned at the append: what is committed later lies behind what was read before.
"""

import json
import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import anyio
import structlog
from nats.aio.msg import Msg
from pydantic_core import from_json, to_json

from contracts.errors import Stale, Unavailable
from contracts.subjects import Names
from contracts.tenant_events import (
    DERIVED_FAMILIES,
    NOBODY,
    EventFilter,
    EventPage,
    LogPlace,
    StoredEvent,
    TenantEvent,
)
from infra.jetstream_api import ApiRefused, StoredRecord, last_on, last_seq
from infra.ledger_tail import RETRY_S, Pull
from infra.nats_connection import Broker
from infra.stream_append import BATCH_COMMIT, BATCH_ID, BATCH_SEQUENCE, STORE_FULL, WRONG_LAST_SEQUENCE

log = structlog.get_logger(__name__)

EXPECTED_LAST: Final = "Nats-Expected-Last-Sequence"
LEDGER_SEQ: Final = "Postroom-Ledger-Seq"
READ_AT_ONCE: Final = 100
APPEND_TIMEOUT_S: Final = 5.0

_Addressed = tuple[str, bytes, dict[str, str]]
"""Subject, payload, headers."""


class EventStream:
    """Implements `router.ports.EventLog` and `gateway.ports.EventLog`."""

    def __init__(self, broker: Broker, names: Names) -> None:
        self._broker = broker
        self._names = names
        self._stream = names.events_stream

    # --- writing ---------------------------------------------------------------------------------------------------

    async def place(self) -> LogPlace:
        # In this order: whatever a faster writer appends in between fails our expectation.
        end = await last_seq(self._broker, self._stream)
        newest = [await self._last_of(family) for family in DERIVED_FAMILIES]
        return LogPlace(last_seq=end, ledger_seq=max(newest))

    async def append(self, events: Sequence[TenantEvent], place: LogPlace) -> LogPlace:
        answer = await self._publish(events, {EXPECTED_LAST: str(place.last_seq)})
        ledger_seqs = [each.ledger_seq for each in events if each.ledger_seq is not None]
        return LogPlace(last_seq=answer, ledger_seq=max([place.ledger_seq, *ledger_seqs]))

    async def publish(self, event: TenantEvent) -> None:
        await self._publish([event], {})

    # --- reading ---------------------------------------------------------------------------------------------------

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

    async def _last_of(self, family: str) -> int:
        record = await last_on(self._broker, self._stream, self._names.events("*", "*", f"{family}.>"))
        return 0 if record is None else _ledger_seq(record)

    async def _publish(self, events: Sequence[TenantEvent], expectation: dict[str, str]) -> int:
        """Store one event plainly, several as an atomic batch; the last sequence. The first bears the expectation."""
        *others, last = self._addressed(events, expectation)
        for subject, payload, headers in others:
            await self._broker.publish(subject, payload, headers=headers)
        subject, payload, headers = last
        answer = await self._broker.request(subject, payload, headers=headers or None, timeout_s=APPEND_TIMEOUT_S)
        return self._acknowledged(answer)

    def _addressed(self, events: Sequence[TenantEvent], expectation: dict[str, str]) -> list[_Addressed]:
        batch_id = secrets.token_hex(8)
        addressed: list[_Addressed] = []
        for number, event in enumerate(events, 1):
            headers = dict(expectation) if number == 1 else {}
            if event.ledger_seq is not None:
                headers[LEDGER_SEQ] = str(event.ledger_seq)
            if len(events) > 1:
                headers |= {BATCH_ID: batch_id, BATCH_SEQUENCE: str(number)}
            subject = self._names.events(event.owner, event.agent_id or NOBODY, event.type)
            addressed.append((subject, _encoded(event), headers))
        if len(events) > 1:
            addressed[-1][2][BATCH_COMMIT] = "1"
        return addressed

    def _acknowledged(self, answer: Msg) -> int:
        try:
            verdict = json.loads(answer.data)
        except ValueError:
            raise Unavailable("broker_unavailable", "nobody answers an append") from None
        if "error" not in verdict:
            return int(verdict["seq"])
        refusal = ApiRefused("append", verdict["error"])
        if refusal.err_code in WRONG_LAST_SEQUENCE:
            raise Stale(self._stream, 0)
        if refusal.err_code in STORE_FULL:
            raise Unavailable("event_log_full", "the log of events is full", retry_after_s=30.0)
        raise refusal


def _encoded(event: TenantEvent) -> bytes:
    """The event as CloudEvents 1.0 in JSON, without its place, which the broker knows."""
    return to_json(
        {
            "specversion": "1.0",
            "id": event.id,
            "source": f"/agents/{event.agent_id}" if event.agent_id else f"/owners/{event.owner}",
            "type": event.type.value,
            "subject": event.subject,
            "time": event.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": event.data,
        }
    )


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
