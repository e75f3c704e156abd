"""The ledger in the order of its sequence, followed without gaps or repetitions over restarts of the broker.

    consumer from the last sequence yielded + 1 ──▶ pulls of 500 ──▶ batches
         ▲                                            │ no answer, a refusal, a gap, a new connection
         └────────────────────────────────────────────┘

The consumer is ephemeral and unacknowledged: where we are is known here and nowhere else.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import anyio
import structlog
from nats.aio.msg import Msg

from contracts.errors import Unavailable
from contracts.events import Event, Stored
from contracts.subjects import Names, ulid_of_subject
from infra import jetstream_api
from infra.codec import Undecodable, decode_event
from infra.nats_connection import Broker
from infra.nats_subscription import Subscription
from router.ports import Moved

log = structlog.get_logger(__name__)

BATCH: Final = 500
IDLE_S: Final = 1.0
GRACE_S: Final = 0.5
"""How much later than promised the broker may end a pull before it counts as gone."""
SETUP_TIMEOUT_S: Final = 0.8
RETRY_S: Final = 0.1
INACTIVE_S: Final = 30
NANOSECONDS: Final = 1_000_000_000
PULL_EXPIRED: Final = frozenset({"404", "408"})
FIRST_SEQUENCE: Final = {9: 5, 11: 7, 12: 7}
"""Where the stream's sequence stands in a reply subject of so many tokens."""


class StreamTail:
    """Implements `router.ports.LedgerTail`."""

    def __init__(self, broker: Broker, names: Names) -> None:
        self._broker = broker
        self._stream = names.ledger_stream

    async def follow(self, after_seq: int) -> AsyncGenerator[Sequence[Moved], None]:
        seen = after_seq
        while True:
            pull = Pull(self._broker, self._stream, seen)
            try:
                await pull.start()
                while True:
                    messages = await pull.batch()
                    if messages:
                        seen = messages[-1][0]
                    yield _decoded(messages)
            except Unavailable as trouble:
                pull.is_broken = True
                log.warning("tail_interrupted", stream=self._stream, after_seq=seen, reason=trouble.message)
            finally:
                await pull.stop()
            yield ()
            await anyio.sleep(RETRY_S)

    async def last_seq(self) -> int:
        return await jetstream_api.last_seq(self._broker, self._stream)


class Pull:
    """One consumer and its standing pull request. Any irregularity raises `Unavailable`; then another one is made."""

    def __init__(
        self,
        broker: Broker,
        stream: str,
        after_seq: int,
        *,
        subject_filter: str | Sequence[str] | None = None,
        at_once: int = BATCH,
    ) -> None:
        self._broker = broker
        self._stream = stream
        self._after_seq = after_seq
        self._subject_filter = subject_filter
        self._at_once = at_once
        self._inbox = broker.new_inbox()
        self._buffer: list[Msg] = []
        self._arrived = asyncio.Event()
        self._subscription: Subscription | None = None
        self._consumer: str | None = None
        self._consumer_seq = 0
        self._outstanding = 0
        self.is_broken = False

    async def start(self) -> None:
        await self._broker.wait_up(SETUP_TIMEOUT_S)
        self._subscription = await self._broker.subscribe(self._inbox, self._take, on_gap=self._break)
        answer = await jetstream_api.call(
            self._broker, f"CONSUMER.CREATE.{self._stream}", self._request(), timeout_s=SETUP_TIMEOUT_S
        )
        self._consumer = answer["name"]

    async def stop(self) -> None:
        """Give the consumer back; the broker forgets by itself one that is in trouble."""
        with anyio.move_on_after(SETUP_TIMEOUT_S, shield=True):
            if self._subscription is not None:
                await self._broker.unsubscribe(self._subscription)
            if self._consumer is not None and not self.is_broken:
                await self._delete_consumer()

    async def batch(self) -> list[tuple[int, Msg]]:
        """(sequence, message) pairs in order; none when nothing arrived for a second."""
        if self._outstanding <= 0:
            await self._pull()
        if not self._buffer:
            await self._wait()
        if self.is_broken:
            raise Unavailable("broker_unavailable", "the connection was lost")
        messages, self._buffer = self._buffer, []
        self._arrived.clear()
        return [pair for pair in map(self._accept, messages) if pair is not None]

    async def _wait(self) -> None:
        with anyio.move_on_after(IDLE_S + GRACE_S) as patience:
            await self._arrived.wait()
        if patience.cancelled_caught:
            raise Unavailable("broker_silent", "the broker left a pull unanswered")

    async def _pull(self) -> None:
        body = {"batch": self._at_once, "expires": int(IDLE_S * NANOSECONDS)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._broker.publish(subject, json.dumps(body).encode(), reply=self._inbox)
        self._outstanding = self._at_once

    def _accept(self, message: Msg) -> tuple[int, Msg] | None:
        """Check that `message` is the consumer's next; None for the end of a pull."""
        # A record of the stream has a reply subject, the end of a pull has none.
        status = None if message.reply else (message.headers or {}).get("Status")
        if status is not None:
            self._end_pull(status)
            return None
        stream_seq, consumer_seq = sequences(message.reply)
        if consumer_seq != self._consumer_seq + 1 or stream_seq <= self._after_seq:
            raise Unavailable("broker_refused", f"a gap before {stream_seq}")
        self._consumer_seq, self._after_seq = consumer_seq, stream_seq
        self._outstanding -= 1
        return stream_seq, message

    def _end_pull(self, status: str) -> None:
        if status not in PULL_EXPIRED:
            raise Unavailable("broker_refused", f"the pull ended with status {status}")
        self._outstanding = 0

    def _take(self, message: Msg) -> None:
        self._buffer.append(message)
        self._arrived.set()

    def _break(self) -> None:
        self.is_broken = True
        self._arrived.set()

    def _request(self) -> dict[str, Any]:
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._after_seq + 1,
            "ack_policy": "none",
            "inactive_threshold": INACTIVE_S * NANOSECONDS,
            "mem_storage": True,
            "num_replicas": 1,
        }
        if isinstance(self._subject_filter, str):
            config["filter_subject"] = self._subject_filter
        elif self._subject_filter is not None:
            config["filter_subjects"] = list(self._subject_filter)
        return {"stream_name": self._stream, "config": config}

    async def _delete_consumer(self) -> None:
        try:
            await jetstream_api.call(self._broker, f"CONSUMER.DELETE.{self._stream}.{self._consumer}")
        except Unavailable as error:
            log.debug("consumer_left_to_expire", stream=self._stream, reason=error.message)


def sequences(reply: str) -> tuple[int, int]:
    """The stream's and the consumer's sequence of a record, from its reply subject.

        $JS.ACK.<stream>.<consumer>.<delivered>.<stream's>.<consumer's>.<time>.<pending>

    In front of the stream's name there may be a domain and an account. nats-py reads all of it, for ten times the cost.
    """
    tokens = reply.split(".")
    first = FIRST_SEQUENCE.get(len(tokens), 0)
    if not (first and reply.startswith("$JS.ACK.")):
        raise Unavailable("broker_refused", "not a message of a stream")
    return int(tokens[first]), int(tokens[first + 1])


def _decoded(messages: Sequence[tuple[int, Msg]]) -> list[Moved]:
    """Events as told; a record nobody can read must not hide those behind it, and is shown by every load of it."""
    moved = []
    for seq, message in messages:
        event = _event(message, seq)
        if isinstance(event, Undecodable):
            log.error("ledger_record_undecodable", record=event.record, reason=event.message)
            continue
        stored = Stored(seq=seq, event=event)
        moved.append(Moved(ulid=ulid_of_subject(message.subject), stored=stored, n_bytes=len(message.data)))
    return moved


def _event(message: Msg, seq: int) -> Event | Undecodable:
    try:
        return decode_event(message.data, record=f"{message.subject}@{seq}")
    except Undecodable as error:
        return error
