"""A supervised connection to the broker, which outlives every way in which a nats-py client dies.

    connecting ──▶ up ──broken, or closed by an unknown -ERR──▶ connecting (a new client, every subscription renewed)

There is one way back instead of two: nats-py's own reconnection is off, because it stores publishes of the old
connection later, and a client the server dismissed with an error it does not know never comes back anyway. Nobody
keeps a raw client; whoever holds the `Broker` goes on using it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from contracts.errors import Unavailable
from infra.background import beside
from infra.broker_url import BadBrokerUrl, BrokerUrl
from infra.inbox import Inbox
from infra.nats_client import NatsClient, login
from infra.nats_jwt import Creds
from infra.nats_subscription import OnGap, OnMessage, Subscription, Take

log = structlog.get_logger(__name__)

WATCH_S: Final = 0.25
"""nats-py reports a closed client only after its socket has closed, which a silent peer can delay for ever."""
UP_POLL_S: Final = 0.005
MAX_UNSENT_BYTES: Final = 16 * 1024 * 1024
"""What may wait for a socket that takes nothing before a publish is refused."""
NO_RESPONDERS: Final = "503"
JITTER: Final = random.SystemRandom()

Credentials = Callable[[], Creds | None]


class NoAnswer(Unavailable):
    """The broker was asked and did not answer: the request may or may not have been carried out."""

    def __init__(self, what: str) -> None:
        super().__init__("broker_silent", f"no answer from the broker: {what}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long things may take, in seconds. The broker is declared dead after the third unanswered ping."""

    first_connect_s: float = 5.0
    request_s: float = 2.0
    ping_interval_s: int = 5
    max_outstanding_pings: int = 2
    connect_s: int = 2
    reconnect_wait_s: float = 0.05
    reconnect_wait_max_s: float = 1.0
    drain_s: float = 2.0


class Broker:
    """The connection as everybody uses it. Made by `Broker.open`.

    `generation` counts the clients there have been, so that a loop can tell whether it still talks to the same one.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        on_lost: Callable[[], None] | None = None,
        on_violation: Callable[[str], None] | None = None,
        patience: Patience | None = None,
        replies: bool = True,
        credentials: Credentials | None = None,
    ) -> None:
        self.name = name
        self.generation = 0
        self.patience = patience or Patience()
        self._address = BrokerUrl.parse(url)
        self._credentials = credentials or self._address.creds
        self._on_lost = on_lost
        self._on_violation = on_violation
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._closing = False
        self._last_error: Exception | None = None
        self._inbox = Inbox()
        self._subscriptions: set[Subscription] = set()
        if replies:
            self._subscriptions.add(Subscription(self._inbox.filter, self._inbox.deliver))

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        name: str,
        on_lost: Callable[[], None] | None = None,
        on_violation: Callable[[str], None] | None = None,
        patience: Patience | None = None,
        replies: bool = True,
        credentials: Credentials | None = None,
    ) -> AsyncIterator["Broker"]:
        """Connect to `url` (`infra.broker_url` says what it may hold) and stay connected.

        `credentials` is asked before each connection who we are, instead of the file the URL may name. `on_lost` is
        called when a connection is lost, `on_violation` with the server's words when it refuses a subject. A user who
        may not subscribe to `_INBOX.>` passes `replies=False` and can make no requests. Raises `BadBrokerUrl` for a URL
        or files that cannot be, `Unavailable` when there is no connection within `patience.first_connect_s`.
        """
        broker = cls(
            url,
            name=name,
            on_lost=on_lost,
            on_violation=on_violation,
            patience=patience,
            replies=replies,
            credentials=credentials,
        )
        broker._login()
        async with beside(broker._supervise):
            try:
                await broker.wait_up(broker.patience.first_connect_s)
                yield broker
            finally:
                await broker._close()

    # --- use -------------------------------------------------------------------------------------------------------

    def client(self) -> Client:
        """The present client; do not keep it. Raises `Unavailable` when there is none."""
        client = self._client
        if client is None or not client.is_connected:
            raise Unavailable("broker_unavailable", "there is no connection to the broker")
        return client

    @property
    def is_up(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def wait_up(self, timeout_s: float) -> None:
        """Wait for a connection; raises `Unavailable` after `timeout_s` seconds without one."""
        with anyio.move_on_after(timeout_s):
            await self._up.wait()
            while not self.is_up:
                # Lost this moment, and the supervisor has not run since: whoever asks again must let it.
                await anyio.sleep(UP_POLL_S)
                await self._up.wait()
            return
        raise Unavailable("broker_unavailable", f"cannot connect to the broker: {self._last_error or 'no answer'}")

    async def publish(
        self, subject: str, payload: bytes = b"", *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Hand a message to the connection. Fails at once with `Unavailable` when there is none, and is never kept.

        Returns without ever yielding to other tasks, so that several publishes stay together.
        """
        client = self.client()
        if client.pending_data_size > MAX_UNSENT_BYTES:
            raise Unavailable("broker_unavailable", "the broker takes nothing from us")
        try:
            await client.publish(subject, payload, reply, headers)
        except nats.errors.Error as error:
            raise Unavailable("broker_unavailable", f"cannot publish: {error}") from error

    async def send(self, messages: bytes) -> None:
        """Hand messages rendered by `infra.wire` to the connection, as `publish` does and at a fraction of its cost.

        nats-py has no public way to do so. This is the one place that goes behind its back.
        """
        client = self.client()
        if client.pending_data_size > MAX_UNSENT_BYTES:
            raise Unavailable("broker_unavailable", "the broker takes nothing from us")
        await client._send_command(messages)
        if client._flush_queue is not None and client._flush_queue.empty():
            await client._flush_pending()

    def new_inbox(self) -> str:
        """A fresh subject for a subscription that collects several answers."""
        return self._inbox.own()

    def expect(self) -> "tuple[str, asyncio.Future[Msg]]":
        """A reply subject and its answer's future; the future fails with `NoAnswer` when the connection is lost."""
        return self._inbox.expect()

    def forget(self, reply: str) -> None:
        self._inbox.forget(reply)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Msg:
        """Ask and wait for the answer. Raises `NoAnswer`, or `Unavailable` when nobody can have been reached."""
        reply, answer = self.expect()
        try:
            await self.publish(subject, payload, reply=reply, headers=headers)
            message = await self.answer_within(answer, timeout_s or self.patience.request_s, subject)
        finally:
            self.forget(reply)
        if (message.headers or {}).get("Status") == NO_RESPONDERS:
            raise Unavailable("broker_unavailable", f"nobody answers on {subject}")
        return message

    async def answer_within(self, answer: "asyncio.Future[Msg]", timeout_s: float, what: str) -> Msg:
        with anyio.move_on_after(timeout_s):
            return await answer
        raise NoAnswer(what)

    async def echo(self, timeout_s: float = 1.0, *, subject: str | None = None) -> None:
        """Send a message to ourselves and wait for it: the only proof that the connection works both ways.

        `subject` is for users who may not use an inbox: one they may both publish and subscribe to.
        """
        if subject is not None:
            return await self._echo_on(subject, timeout_s)
        reply, answer = self.expect()
        try:
            await self.publish(reply)
            await self.answer_within(answer, timeout_s, "echo")
        finally:
            self.forget(reply)

    async def subscribe(
        self, subject: str, on_message: OnMessage, *, on_gap: OnGap | None = None, queue: str = ""
    ) -> Subscription:
        """Call `on_message` for each message on `subject`, over any number of connections, until `unsubscribe`.

        `on_gap` is called after each new connection, and when nats-py had to drop messages: some may be missed.
        """
        subscription = Subscription(subject, on_message, on_gap, queue)
        client = self.client()
        try:
            await subscription.renew(client)
        except nats.errors.Error as error:
            raise Unavailable("broker_unavailable", f"cannot subscribe: {error}") from error
        self._subscriptions.add(subscription)
        return subscription

    async def take_all(self, subject: str, take: Take, *, queue: str = "") -> Subscription:
        """The same for subjects with very many messages: `take` is called with subject and payload, and no more."""
        subscription = Subscription(subject, lambda message: take(message.subject, message.data), None, queue, take)
        await subscription.renew(self.client())
        self._subscriptions.add(subscription)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        await subscription.drop()

    async def _echo_on(self, subject: str, timeout_s: float) -> None:
        heard = anyio.Event()
        subscription = await self.subscribe(subject, lambda _: heard.set())
        try:
            await self.publish(subject)
            with anyio.move_on_after(timeout_s):
                await heard.wait()
                return
            raise NoAnswer("echo")
        finally:
            await self.unsubscribe(subscription)

    # --- supervision -----------------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        while not self._closing:
            client, closed = await self._connect_at_last()
            try:
                await self._install(client)
            except nats.errors.Error as error:
                log.warning("broker_lost_at_once", connection=self.name, error=str(error))
            while client.is_connected and not closed.is_set():
                with anyio.move_on_after(WATCH_S):
                    await closed.wait()
            self._retire(client)

    async def _connect_at_last(self) -> tuple[Client, anyio.Event]:
        wait_s = self.patience.reconnect_wait_s
        while True:
            try:
                return await self._connect()
            except (nats.errors.Error, OSError, TimeoutError, BadBrokerUrl) as error:
                if wait_s == self.patience.reconnect_wait_s:
                    log.warning("broker_unreachable", connection=self.name, error=str(self._last_error or error))
                self._last_error = self._last_error or error
            # Jitter, so that programs that lost the broker together do not come back together.
            await anyio.sleep(wait_s * JITTER.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, self.patience.reconnect_wait_max_s)

    async def _connect(self) -> tuple[Client, anyio.Event]:
        # Before there is a client to close: a file that is being renewed may be half there.
        arguments = self._login()
        client, closed = NatsClient(), anyio.Event()

        async def on_closed() -> None:
            closed.set()

        try:
            await client.connect(
                list(self._address.servers),
                **arguments,
                name=self.name,
                error_cb=self._note_error,
                closed_cb=on_closed,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=self.patience.connect_s,
                ping_interval=self.patience.ping_interval_s,
                max_outstanding_pings=self.patience.max_outstanding_pings,
                drain_timeout=1,
                pending_size=-1,
            )
        except BaseException:
            await _close_client(client, self.patience.drain_s)
            raise
        return client, closed

    def _login(self) -> dict[str, Any]:
        return login(self._credentials(), self._address.tls())

    async def _install(self, client: Client) -> None:
        for subscription in list(self._subscriptions):
            await subscription.renew(client)
        self._client = client
        self.generation += 1
        self._last_error = None
        self._up.set()
        log.info("broker_connected", connection=self.name, generation=self.generation)
        if self.generation > 1:
            for subscription in list(self._subscriptions):
                subscription.missed()

    def _retire(self, client: Client) -> None:
        was_up, self._client = self._client is not None, None
        self._up.clear()
        self._inbox.lose(NoAnswer("the connection was lost"))
        if self._closing:
            return
        log.warning("broker_lost", connection=self.name, error=str(client.last_error or self._last_error))
        if was_up and self._on_lost is not None:
            self._on_lost()

    async def _note_error(self, error: Exception) -> None:
        if self._client is None:
            # An attempt to connect that fails; `_connect_at_last` tells of the first one. A refusal says more than the
            # reset that may follow it.
            if "authorization" not in str(self._last_error).lower():
                self._last_error = error
            return
        if isinstance(error, nats.errors.SlowConsumerError):
            self._note_dropped(error)
        elif "permissions violation" in str(error).lower():
            log.error("broker_permissions_violation", connection=self.name, error=str(error))
            if self._on_violation is not None:
                self._on_violation(str(error))
        else:
            self._last_error = error
            log.warning("broker_error", connection=self.name, error=repr(error))

    def _note_dropped(self, error: nats.errors.SlowConsumerError) -> None:
        log.warning("broker_messages_dropped", connection=self.name, subject=error.subject)
        for subscription in list(self._subscriptions):
            if subscription.is_behind(error.sub):
                subscription.missed()

    async def _close(self) -> None:
        self._closing = True
        client, self._client = self._client, None
        self._inbox.lose(NoAnswer("the connection is closed"))
        if client is None:
            return
        with anyio.move_on_after(self.patience.drain_s, shield=True):
            try:
                await client.drain()
            except nats.errors.Error as error:
                log.debug("drain_skipped", connection=self.name, error=str(error))
        await _close_client(client, self.patience.drain_s)


async def _close_client(client: Client, timeout_s: float) -> None:
    with anyio.move_on_after(timeout_s, shield=True):
        try:
            await client.close()
        except (nats.errors.Error, OSError) as error:
            log.debug("close_skipped", error=str(error))
