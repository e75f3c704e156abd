"""Small messages on core NATS that may be lost: pushes to monitors, and news for the other programs."""

import structlog

from contracts.errors import Unavailable
from contracts.records import Echo, Envelope
from contracts.subjects import Names, echo, push
from infra.codec import encode_echo, encode_envelope
from infra.nats_connection import Broker
from infra.wire import published

log = structlog.get_logger(__name__)


class BrokerPushes:
    """Implements `router.ports.Pushes`. `lost` counts the envelopes that could not be handed to the broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.lost = 0

    async def push(self, envelope: Envelope) -> bool:
        subject = push(envelope.channel, envelope.agent_id, envelope.execution_id)
        try:
            await self._broker.send(published(subject, encode_envelope(envelope)))
        except Unavailable as error:
            self.lost += 1
            log.warning("push_lost", execution_id=envelope.execution_id, reason=error.message)
            return False
        return True


class BrokerEchoes:
    """Implements `gateway.ports.EchoPushes`: along the very way pushes take."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def ask(self, question: Echo) -> bool:
        try:
            await self._broker.publish(echo(question.agent_id, question.echo_id), encode_echo(question))
        except Unavailable as error:
            log.warning("echo_not_asked", agent_id=question.agent_id, reason=error.message)
            return False
        return True


class BrokerAnnouncer:
    """Implements `gateway.ports.Announcer`: a hint, behind which the routers' own looking stands."""

    def __init__(self, broker: Broker, names: Names) -> None:
        self._broker = broker
        self._names = names

    async def session_attached(self, agent_id: str) -> None:
        try:
            await self._broker.publish(self._names.session_attached, agent_id.encode())
        except Unavailable as error:
            log.warning("announcement_lost", agent_id=agent_id, reason=error.message)
