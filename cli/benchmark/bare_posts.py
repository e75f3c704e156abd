"""Webhooks without postroom: aiohttp and nothing else, to the same receivers. The floor of webhooks per second."""

from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from cli.benchmark.message import VIEW
from cli.benchmark.posts import run_posts

HEADERS: Final = {"content-type": "application/json", "webhook-id": "bare"}
OK: Final = 200


async def run_bare_posts(urls: Sequence[str], *, in_flight: int, duration_s: float) -> dict[str, Any]:
    """POST a body as long as a message's to each URL in its turn, unsigned, `in_flight` at once."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS, trust_env=False) as session:

        async def post(url: str) -> str | None:
            try:
                async with session.post(url, data=VIEW) as response:
                    await response.read()
            except (aiohttp.ClientError, OSError) as error:
                return type(error).__name__
            return None if response.status == OK else f"status {response.status}"

        return await run_posts(post, urls, in_flight=in_flight, duration_s=duration_s)
