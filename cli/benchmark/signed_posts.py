"""Webhooks by the router's own sender and nothing behind it: judged, signed and posted, in no ledger."""

from collections.abc import Sequence
from itertools import count
from typing import Any, Final

from cli.benchmark.message import VIEW
from cli.benchmark.posts import run_posts
from infra.clock import SystemClock, SystemIds
from infra.signing import SECRET_MIN_BYTES, mint_webhook_secret
from infra.webhook_client import AiohttpSender

OK: Final = 200


async def run_signed_posts(urls: Sequence[str], *, in_flight: int, duration_s: float) -> dict[str, Any]:
    """POST a body as long as a message's to each URL in its turn, `in_flight` at once.

    Each POST has an id of its own and is signed (v1) with the secret of its URL.
    """
    ids = SystemIds()
    secrets = {url: mint_webhook_secret(ids.secret(SECRET_MIN_BYTES)) for url in urls}
    numbers = count()
    async with AiohttpSender(SystemClock(), allow_http=True, allow_loopback=True) as sender:

        async def post(url: str) -> str | None:
            message_id = f"msg_{next(numbers):026d}"
            result = await sender.post(url=url, secret=secrets[url], message_id=message_id, body=VIEW)
            if result.status == OK:
                return None
            return result.error or f"status {result.status}"

        return await run_posts(post, urls, in_flight=in_flight, duration_s=duration_s)
