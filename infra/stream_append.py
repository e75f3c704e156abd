"""Conditional appends as they travel: one record, or an atomic batch of them, and what the broker's answer means."""

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from nats.aio.msg import Msg

from contracts.errors import PostroomError, Stale, Unavailable
from infra.jetstream_api import ApiRefused
from infra.nats_connection import Broker, NoAnswer
from infra.wire import BATCH_ID, BATCH_SEQUENCE, batch_member, published

log = structlog.get_logger(__name__)

WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10164})
STORE_FULL: Final = frozenset({10023, 10047, 10077})
"""Insufficient resources, storage resources exceeded, the stream's own limit reached."""

EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
BATCH_COMMIT: Final = "Nats-Batch-Commit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record to store if the last sequence on `subject` is still `expected_seq` (0: the subject is empty)."""

    subject: str
    payload: bytes
    expected_seq: int
    headers: Mapping[str, str] | None = None


class StreamAppend:
    """Appends to one stream over `broker`. Every method either knows what happened or raises `NoAnswer`."""

    def __init__(self, broker: Broker, *, ack_timeout_s: float) -> None:
        self._broker = broker
        self._ack_timeout_s = ack_timeout_s
        self._batch_prefix = secrets.token_hex(8)
        self._batches = 0

    async def store(self, records: Sequence[Record], *, once_sent: Callable[[], None] | None = None) -> int:
        """Store one record plainly, several as an atomic batch; return the last sequence.

        `once_sent` is called once nothing is left to do but to await the answer. A batch takes consecutive sequences,
        in order. Raises `ApiRefused` when the broker refuses (then nothing is stored), `NoAnswer` when that is unknown,
        and `Unavailable` when nothing was handed to the connection.
        """
        reply, answer = self._broker.expect()
        try:
            try:
                await self._publish(records, reply)
            finally:
                if once_sent is not None:
                    once_sent()
            return await self.acknowledged(answer, len(records), self._ack_timeout_s)
        finally:
            self._broker.forget(reply)

    async def store_together(
        self, messages: Sequence[tuple[str, bytes]], *, first: Mapping[str, str], last: Mapping[str, str]
    ) -> int:
        """Store (subject, payload) pairs, whatever their subjects hold, as `store` does; return the last sequence.

        The first bears the headers `first`, the last those of `last`.
        """
        reply, answer = self._broker.expect()
        try:
            await self._broker.send(self._together(messages, reply, first, last))
            return await self.acknowledged(answer, len(messages), self._ack_timeout_s)
        finally:
            self._broker.forget(reply)

    def _together(
        self, messages: Sequence[tuple[str, bytes]], reply: str, first: Mapping[str, str], last: Mapping[str, str]
    ) -> bytes:
        if len(messages) == 1:
            [(subject, payload)] = messages
            return published(subject, payload, reply=reply, headers={**first, **last})
        batch_id = self._next_batch_id()
        rendered = [
            batch_member(subject, payload, batch_id, number) for number, (subject, payload) in enumerate(messages, 1)
        ]
        rendered[0] = batch_member(*messages[0], batch_id, 1, headers=first)
        rendered[-1] = batch_member(
            *messages[-1], batch_id, len(messages), headers={**last, BATCH_COMMIT: "1"}, reply=reply
        )
        return b"".join(rendered)

    def _next_batch_id(self) -> str:
        self._batches += 1
        return f"{self._batch_prefix}.{self._batches}"

    async def _publish(self, records: Sequence[Record], reply: str) -> None:
        if len(records) == 1:
            await self.publish_one(records[0], reply)
        else:
            await self._publish_batch(records, reply)

    async def publish_one(self, record: Record, reply: str) -> None:
        headers = {EXPECTED: str(record.expected_seq), **(record.headers or {})}
        await self._broker.send(published(record.subject, record.payload, reply=reply, headers=headers))

    async def acknowledged(self, answer: "asyncio.Future[Msg]", n_records: int, timeout_s: float) -> int:
        """The last sequence an answer acknowledges for `n_records` records."""
        message = await self._broker.answer_within(answer, timeout_s, "append")
        try:
            verdict = json.loads(message.data)
        except ValueError:
            # "No responders" has no body: JetStream is not there yet.
            raise NoAnswer("append") from None
        if "error" in verdict:
            raise ApiRefused("append", verdict["error"])
        if verdict.get("count", 1) != n_records:
            raise NoAnswer(f"{verdict.get('count', 1)} of {n_records} records acknowledged")
        return int(verdict["seq"])

    async def _publish_batch(self, records: Sequence[Record], reply: str) -> None:
        """Nothing counts before the commit, and all of it is handed over in one piece."""
        batch_id = self._next_batch_id()
        messages = []
        for number, record in enumerate(records, 1):
            headers = {EXPECTED: str(record.expected_seq), BATCH_ID: batch_id, BATCH_SEQUENCE: str(number)}
            if record.headers:
                headers.update(record.headers)
            if number < len(records):
                messages.append(published(record.subject, record.payload, headers=headers))
            else:
                headers[BATCH_COMMIT] = "1"
                messages.append(published(record.subject, record.payload, reply=reply, headers=headers))
        await self._broker.send(b"".join(messages))


def error_of(refusal: ApiRefused, record: Record) -> PostroomError:
    """What a refused append means to whoever wanted it; `record` is named in a `Stale`."""
    if refusal.err_code in WRONG_LAST_SEQUENCE:
        return Stale(record.subject, record.expected_seq)
    if refusal.err_code in STORE_FULL:
        return Unavailable("storage_full", "the broker's store is full", retry_after_s=30.0)
    log.error("append_refused", subject=record.subject, error=refusal.message)
    return refusal
