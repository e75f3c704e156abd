"""The newest digest of an agent, as the log of events keeps it."""

from pydantic_core import from_json

from contracts.subjects import Names
from contracts.tenant_events import EventType, StoredEvent
from infra.jetstream_api import last_on
from infra.nats_connection import Broker


class StreamDigests:
    """Implements `router.ports.DigestBook`."""

    def __init__(self, broker: Broker, names: Names) -> None:
        self._broker = broker
        self._names = names

    async def newest(self, owner: str, agent_id: str) -> StoredEvent | None:
        subject = self._names.events(owner, agent_id, EventType.MESSAGE_DIGEST)
        record = await last_on(self._broker, self._names.events_stream, subject)
        return None if record is None else StoredEvent(seq=record.seq, attributes=from_json(record.payload))
