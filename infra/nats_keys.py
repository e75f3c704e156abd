"""NATS keys ("nkeys"): an Ed25519 pair for an operator, an account or a user, written with a letter that says which."""

import base64
import binascii
import secrets
from enum import Enum
from typing import Final

import nkeys
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

KEY_BYTES: Final = 32
CHECKSUM_BYTES: Final = 2


class BadKey(ValueError):
    """A text is no key, or not of the kind that is needed here. The text is never shown: it may be a seed."""


class Kind(Enum):
    """What a key stands for: its public form begins with `O`, `A` or `U`, its seed with `SO`, `SA` or `SU`."""

    OPERATOR = nkeys.PREFIX_BYTE_OPERATOR
    ACCOUNT = nkeys.PREFIX_BYTE_ACCOUNT
    USER = nkeys.PREFIX_BYTE_USER


class NatsKey:
    """A pair that can sign. Shows its public half only; `seed` is the secret in the form that files hold."""

    def __init__(self, seed: str) -> None:
        """Raises `BadKey` when the text is no seed."""
        try:
            self.kind = Kind(nkeys.decode_seed(seed.encode())[0])
            self._pair = nkeys.from_seed(seed.encode())
            self.public = str(self._pair.public_key.decode())
        except (nkeys.NkeysError, ValueError, TypeError):
            raise BadKey("this is no seed of an operator, an account or a user") from None
        self.seed = seed
        # A text that was cut or mistyped decodes to another key unless its checksum is looked at.
        if nkeys.encode_seed(nkeys.decode_seed(seed.encode())[1], self.kind.value).decode() != seed:
            raise BadKey("this seed is damaged: its checksum is wrong")

    @classmethod
    def fresh(cls, kind: Kind) -> "NatsKey":
        """A new pair from the system's random source."""
        return cls(nkeys.encode_seed(secrets.token_bytes(KEY_BYTES), kind.value).decode())

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of the signature."""
        return bytes(self._pair.sign(data))

    def __repr__(self) -> str:
        return f"NatsKey({self.public})"


def require_public(text: str, kind: Kind) -> str:
    """Return the public key as it is. Raises `BadKey` for a seed, another kind, or a wrong checksum."""
    _raw_public(text, kind)
    return text


def is_signed(data: bytes, signature: bytes, public: str, kind: Kind) -> bool:
    """Say whether the key behind `public` made this signature. Raises `BadKey` as `require_public` does."""
    try:
        VerifyKey(_raw_public(public, kind)).verify(data, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def _raw_public(text: str, kind: Kind) -> bytes:
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        raise BadKey(f"this is no public key of kind {kind.name.lower()}") from None
    body, checksum = raw[:-CHECKSUM_BYTES], raw[-CHECKSUM_BYTES:]
    sound = len(body) == 1 + KEY_BYTES and body[0] == kind.value
    if not sound or binascii.crc_hqx(body, 0).to_bytes(CHECKSUM_BYTES, "little") != checksum:
        raise BadKey(f"this is no public key of kind {kind.name.lower()}")
    return body[1:]
