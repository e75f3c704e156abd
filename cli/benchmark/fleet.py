"""Webhook agents of several owners, each with a receiver on a host of its own: as many as fill a router's places."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cli.api import Api
from cli.benchmark.children import Product

OWNERS: Final = 8
"""A router has 64 deliveries of one owner under way, and 512 in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """An agent with a webhook, and the key of its owner."""

    agent: str
    key: str


def furnish_fleet(product: Product, urls: Sequence[str]) -> tuple[Hook, ...]:
    """An agent for each URL, of `OWNERS` fresh owners in turn; its limits are the usual ones."""
    admin, run = Api(product.url, product.admin_key), secrets.token_hex(4)
    try:
        owners = [f"bench-{run}-{number}" for number in range(OWNERS)]
        keys = [str(admin.post("/v1/keys", {"owner": owner, "name": "bench"})["key"]) for owner in owners]
    finally:
        admin.close()
    crews = [list(_agents(product, key, urls[number::OWNERS])) for number, key in enumerate(keys)]
    return tuple(crews[number % OWNERS][number // OWNERS] for number in range(len(urls)))


def _agents(product: Product, key: str, urls: Sequence[str]) -> Iterator[Hook]:
    api = Api(product.url, key)
    try:
        for number, url in enumerate(urls):
            body = {"slug": f"hook-{number}", "delivery_capabilities": ["webhook"], "webhook_url": url}
            yield Hook(agent=str(api.post("/v1/agents", body)["id"]), key=key)
    finally:
        api.close()
