"""Standard Webhooks signatures, version 1: the three headers a receiver verifies, and the secrets behind them.

    signed content   <webhook-id>.<webhook-timestamp>.<body>
    signature        v1,<base64 of HMAC-SHA256>; one per secret, separated by spaces, so that secrets can be rotated
    secret           whsec_<base64 of 24 to 64 random bytes>

https://www.standardwebhooks.com has the specification.
"""

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from math import floor
from typing import Final

from standardwebhooks import Webhook

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - a prefix, not a secret
SECRET_MIN_BYTES: Final = 24
SECRET_MAX_BYTES: Final = 64

# A dot inside the id would let two different (id, timestamp) pairs sign the same content.
_SIGNABLE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


def mint_webhook_secret(random_bytes: bytes) -> str:
    """Write 24 to 64 fresh random bytes as a secret to hand to a receiver. Raises `ValueError` for any other number."""
    _require_length(random_bytes)
    return SECRET_PREFIX + base64.b64encode(random_bytes).decode()


def signed_headers(secrets: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The three Standard Webhooks headers of one attempt made at `at` (aware) with a UTF-8 `body`.

    Every secret signs. Raises `ValueError` for a malformed id or secret, and when there is no secret.
    """
    if not _SIGNABLE_ID.fullmatch(message_id):
        raise ValueError("a message id is made of letters, digits, _ and -")
    if not secrets:
        raise ValueError("a webhook is signed with at least one secret")
    instant, text = at.astimezone(UTC), body.decode()
    signatures = (Webhook(_secret_bytes(secret)).sign(message_id, instant, text) for secret in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(floor(instant.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _secret_bytes(secret: str) -> bytes:
    """Decode strictly: the library skips characters foreign to base64, and so would sign with another secret."""
    encoded = secret.removeprefix(SECRET_PREFIX)
    decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    _require_length(decoded)
    return decoded


def _require_length(secret: bytes) -> None:
    if not SECRET_MIN_BYTES <= len(secret) <= SECRET_MAX_BYTES:
        raise ValueError(f"a webhook secret has {SECRET_MIN_BYTES} to {SECRET_MAX_BYTES} bytes, not {len(secret)}")
