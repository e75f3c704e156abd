"""Interest in a subject of the broker that outlives connections: renewed by the supervisor on each new one."""

from collections.abc import Callable
from dataclasses import dataclass, field

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from infra.nats_client import NatsClient

log = structlog.get_logger(__name__)

OnMessage = Callable[[Msg], None]
OnGap = Callable[[], None]
Take = Callable[[str, bytes], None]


@dataclass(eq=False, slots=True)
class Subscription:
    """Interest in a subject that survives the connection. `on_gap` is called when messages may have been missed.

    Of those who subscribe with the same `queue`, each message reaches one. `take` is called instead of `on_message`
    where it is set, at half the cost of a message; it must not block.
    """

    subject: str
    on_message: OnMessage
    on_gap: OnGap | None = None
    queue: str = ""
    take: Take | None = None
    _present: NatsSubscription | None = field(default=None, repr=False)

    async def renew(self, client: Client) -> None:
        async def deliver(message: Msg) -> None:
            self.on_message(message)

        self._present = await client.subscribe(self.subject, queue=self.queue, cb=deliver)
        if self.take is not None and isinstance(client, NatsClient):
            client.straight[self._present._id] = self.take

    async def drop(self) -> None:
        """Give up the interest in the present connection; a connection that is gone has forgotten it already."""
        present, self._present = self._present, None
        try:
            if present is not None:
                await present.unsubscribe()
        except nats.errors.Error as error:
            log.debug("unsubscribe_skipped", subject=self.subject, error=str(error))

    def is_behind(self, present: object) -> bool:
        return self._present is present

    def missed(self) -> None:
        if self.on_gap is not None:
            self.on_gap()
