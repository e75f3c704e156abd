"""What the broker pushes to a monitor and the beats it publishes: core NATS and no answers, through every restart."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio
import nats.errors
import structlog
from nats.aio.msg import Msg
from pydantic import TypeAdapter, ValidationError

from contracts.errors import Unavailable
from contracts.records import Echo, Envelope
from contracts.subjects import is_echo
from infra.broker_url import BadBrokerUrl
from infra.nats_connection import Broker, Credentials, Patience

ENVELOPE: Final = TypeAdapter(Envelope)
ECHO: Final = TypeAdapter(Echo)
ENVELOPE_MAX_BYTES: Final = 8 * 1024
CONFIRM_TIMEOUT_S: Final = 5
RETRY_S: Final = 2.0
REFUSED_TO_SPEAK: Final = "violation for publish"

Pushed = TypeVar("Pushed", Envelope, Echo)

log = structlog.get_logger()


class EdgeFeed:
    """Subscribes and stays subscribed. Subjects the broker refuses are told in the log and asked for again.

    What the broker does not let us publish is not tried again on the same connection.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        patience: Patience | None = None,
        retry_s: float = RETRY_S,
        credentials: Credentials | None = None,
    ) -> None:
        """`credentials` says who we are, instead of the file the URL may name."""
        self._url = url
        self._name = name
        self._credentials = credentials
        self._patience = patience
        self._retry_s = retry_s
        self._speaks_by: Broker | None = None

    async def follow(
        self,
        subjects: Sequence[str],
        heard: Callable[[Envelope], None],
        subscribed: Callable[[], None],
        echoed: Callable[[Echo], None] = lambda _: None,
    ) -> None:
        while True:
            try:
                async with self._connection() as (broker, refused):
                    await _subscribe(broker, subjects, heard, echoed, subscribed)
                    if not refused.is_set():
                        self._speaks_by = broker
                        subscribed()
                    await refused.wait()
                    log.error("edge_subscription_refused", connection=self._name, subjects=len(subjects))
            except (Unavailable, nats.errors.Error, BadBrokerUrl) as error:
                # A file the URL names may be half there while somebody renews it.
                log.warning("edge_unreachable", connection=self._name, error=str(error))
            finally:
                self._speaks_by = None
            await anyio.sleep(self._retry_s)

    @property
    def is_speaking(self) -> bool:
        return self._speaks_by is not None and self._speaks_by.is_up

    async def say(self, subject: str, payload: bytes) -> bool:
        if self._speaks_by is None:
            return False
        try:
            await self._speaks_by.publish(subject, payload)
        except Unavailable:
            return False
        return True

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[Broker, anyio.Event]]:
        refused = anyio.Event()

        def take_violation(words: str) -> None:
            if REFUSED_TO_SPEAK in words.lower():
                self._speaks_by = None
            else:
                refused.set()

        async with Broker.open(
            self._url,
            name=self._name,
            on_violation=take_violation,
            patience=self._patience,
            replies=False,
            credentials=self._credentials,
        ) as broker:
            yield broker, refused


async def _subscribe(
    broker: Broker,
    subjects: Sequence[str],
    heard: Callable[[Envelope], None],
    echoed: Callable[[Echo], None],
    on_gap: Callable[[], None],
) -> None:
    def take(message: Msg) -> None:
        if is_echo(message.subject):
            echo = _parse(ECHO, message.data)
            if echo is not None:
                echoed(echo)
        elif (envelope := parse_envelope(message.data)) is not None:
            heard(envelope)

    for subject in subjects:
        await broker.subscribe(subject, take, on_gap=on_gap)
    # The server answers a ping after everything it read before it, so a refusal has arrived by then. Twice, because
    # nats-py writes a ping past what its flusher still holds: the first may overtake our subscriptions.
    for _ in range(2):
        await broker.client().flush(timeout=CONFIRM_TIMEOUT_S)


def parse_envelope(data: bytes) -> Envelope | None:
    """The push, or None when it is not one we understand: the poll covers what is dropped here."""
    return _parse(ENVELOPE, data)


def _parse(adapter: TypeAdapter[Pushed], data: bytes) -> Pushed | None:
    if len(data) > ENVELOPE_MAX_BYTES:
        log.warning("push_malformed", reason="too_large", size_bytes=len(data))
        return None
    try:
        found = adapter.validate_json(data)
    except ValidationError as error:
        log.warning("push_malformed", reason="not_an_envelope", fields=[item["loc"] for item in error.errors()][:5])
        return None
    if found.v != 1:
        log.warning("push_malformed", reason="unknown_version", version=found.v)
        return None
    return found
