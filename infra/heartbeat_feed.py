"""Monitors' heartbeats as the broker hands them to routers: each message to one of an installation's routers."""

from collections.abc import Callable
from typing import Final

import anyio

from contracts.heartbeats import SUBJECT_PREFIX
from contracts.subjects import Names
from infra.nats_connection import Broker

SUBJECT: Final = f"{SUBJECT_PREFIX}>"


async def follow_heartbeats(broker: Broker, names: Names, hear: Callable[[str, bytes], None]) -> None:
    """Call `hear` with subject and payload of those that are this router's to note, until cancelled."""
    # Installations that share a broker hear each other's: what is not one's own is not proved.
    subscription = await broker.take_all(SUBJECT, hear, queue=f"{names.prefix or 'postroom'}-heartbeats")
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await broker.unsubscribe(subscription)
