"""Standard Webhooks as a receiver reads it: written from the specification, with none of the code that signs."""

import base64
import hashlib
import hmac
from collections.abc import Mapping

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey


def verifies(key: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether one of the signatures was made for `key`: a `whsec_` secret, or a `whpk_` public key."""
    fields = {name.lower(): value for name, value in headers.items()}
    content = b".".join((fields["webhook-id"].encode(), fields["webhook-timestamp"].encode(), body))
    kind, _, encoded = key.partition("_")
    check = {"whsec": _is_hmac, "whpk": _is_ed25519}[kind]
    version = {"whsec": "v1", "whpk": "v1a"}[kind]
    signatures = (each.split(",", 1) for each in fields["webhook-signature"].split(" "))
    return any(check(base64.b64decode(encoded), content, base64.b64decode(s)) for v, s in signatures if v == version)


def _is_hmac(secret: bytes, content: bytes, signature: bytes) -> bool:
    return hmac.compare_digest(hmac.new(secret, content, hashlib.sha256).digest(), signature)


def _is_ed25519(public: bytes, content: bytes, signature: bytes) -> bool:
    try:
        VerifyKey(public).verify(content, signature)
    except BadSignatureError:
        return False
    return True
