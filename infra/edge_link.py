"""A monitor's way to the broker with a key of its own: made here, kept in memory, vouched for by the gateway."""

from infra.edge import RETRY_S, EdgeFeed
from infra.nats_jwt import Creds
from infra.nats_keys import Kind, NatsKey


class EdgeLink:
    """Implements `monitor.ports.Link`."""

    def __init__(self, name: str, *, retry_s: float = RETRY_S) -> None:
        self._name = name
        self._retry_s = retry_s
        self._key = NatsKey.fresh(Kind.USER)

    @property
    def public_key(self) -> str:
        return self._key.public

    def feed(self, url: str, jwt: str) -> EdgeFeed:
        creds = Creds(jwt=jwt, key=self._key)
        return EdgeFeed(url, name=self._name, credentials=lambda: creds, retry_s=self._retry_s)
