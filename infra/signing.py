"""Standard Webhooks signatures: the three headers a receiver verifies, and the secrets behind them.

    signed content   <webhook-id>.<webhook-timestamp>.<body>
    v1               v1,<base64 of HMAC-SHA256>; whsec_<base64 of 24 to 64 random bytes>, known to both sides
    v1a              v1a,<base64 of Ed25519>; whsk_<base64 of the key's 32-byte seed> here, whpk_<…> at the receiver

Each secret signs by its kind; signatures are separated by spaces, so that secrets can be rotated.
https://www.standardwebhooks.com has the specification.
"""

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from math import floor
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - a prefix, not a secret
PRIVATE_PREFIX: Final = "whsk_"
PUBLIC_PREFIX: Final = "whpk_"
SECRET_MIN_BYTES: Final = 24
SECRET_MAX_BYTES: Final = 64
SEED_BYTES: Final = 32

# A dot inside the id would let two different (id, timestamp) pairs sign the same content.
_SIGNABLE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


def mint_webhook_secret(random_bytes: bytes) -> str:
    """Write 24 to 64 fresh random bytes as a secret to hand to a receiver. Raises `ValueError` for any other number."""
    _require_length(random_bytes)
    return SECRET_PREFIX + base64.b64encode(random_bytes).decode()


def mint_private_key(random_bytes: bytes) -> str:
    """Write 32 fresh random bytes as an Ed25519 key. It never leaves the server; `public_key` is for receivers."""
    if len(random_bytes) != SEED_BYTES:
        raise ValueError(f"a signing key has {SEED_BYTES} bytes, not {len(random_bytes)}")
    return PRIVATE_PREFIX + base64.b64encode(random_bytes).decode()


def public_key(secret: str) -> str | None:
    """What receivers verify `v1a` signatures of this secret with; None for a secret of another kind."""
    if not secret.startswith(PRIVATE_PREFIX):
        return None
    return PUBLIC_PREFIX + base64.b64encode(_private_key(secret).public_key().public_bytes_raw()).decode()


def signed_headers(secrets: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The three Standard Webhooks headers of one attempt made at `at` (aware) with a UTF-8 `body`.

    Every secret signs. Raises `ValueError` for a malformed id or secret, and when there is no secret.
    """
    if not _SIGNABLE_ID.fullmatch(message_id):
        raise ValueError("a message id is made of letters, digits, _ and -")
    if not secrets:
        raise ValueError("a webhook is signed with at least one secret")
    instant = at.astimezone(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(floor(instant.timestamp())),
        "webhook-signature": " ".join(_signature(each, message_id, instant, body) for each in secrets),
    }


def _signature(secret: str, message_id: str, instant: datetime, body: bytes) -> str:
    if not secret.startswith(PRIVATE_PREFIX):
        return Webhook(_secret_bytes(secret)).sign(message_id, instant, body.decode())
    content = f"{message_id}.{floor(instant.timestamp())}.{body.decode()}".encode()
    return f"v1a,{base64.b64encode(_private_key(secret).sign(content)).decode()}"


@lru_cache(maxsize=1024)
def _private_key(secret: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(secret.removeprefix(PRIVATE_PREFIX), validate=True))


def _secret_bytes(secret: str) -> bytes:
    """Decode strictly: the library skips characters foreign to base64, and so would sign with another secret."""
    encoded = secret.removeprefix(SECRET_PREFIX)
    decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    _require_length(decoded)
    return decoded


def _require_length(secret: bytes) -> None:
    if not SECRET_MIN_BYTES <= len(secret) <= SECRET_MAX_BYTES:
        raise ValueError(f"a webhook secret has {SECRET_MIN_BYTES} to {SECRET_MAX_BYTES} bytes, not {len(secret)}")
