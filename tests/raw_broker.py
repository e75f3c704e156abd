"""nats-py's own client for tests that must not go through ours: the same URLs, the same credentials."""

from typing import Any

import nats
from nats.aio.client import Client

from infra.broker_url import BrokerUrl
from infra.nats_client import login


async def raw_client(url: str, **options: Any) -> Client:
    """Connect as the user whose creds file the URL names."""
    address = BrokerUrl.parse(url)
    return await nats.connect(list(address.servers), **login(address.creds(), address.tls()), **options)
