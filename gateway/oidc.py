"""What a bearer token of an OpenID provider has to be, and whom it speaks for. Pure.

    header.claims.signature ──read strictly──▶ algorithm, key id ──provider's key──▶ signature ──▶ claims ──▶ Principal

A token names the key it was signed with and never brings it. Its algorithm is one of four of public keys, and a key
takes only those of its own kind, so a public key never serves as the secret of an HMAC. What is wrong with a token is
said to nobody: the answer is None.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from contracts.errors import Invalid, Rejected
from contracts.ids import OWNER
from contracts.records import JsonObject, Principal
from contracts.words import Scope
from gateway.ports import PublicKey, TokenKeys
from gateway.scopes import scopes_named
from gateway.strict_json import parse_object

MAX_TOKEN_BYTES: Final = 8_192
MAX_KID_CHARACTERS: Final = 256
MAX_SUBJECT_CHARACTERS: Final = 255  # OpenID Connect Core, section 2
KINDS: Final[Mapping[str, type[PublicKey]]] = {
    "RS256": RSAPublicKey,
    "PS256": RSAPublicKey,
    "ES256": EllipticCurvePublicKey,
    "EdDSA": Ed25519PublicKey,
}
KEY_ID_PREFIX: Final = "oidc-"
_KEY_ID_DIGITS: Final = 12
# RFC 9068 gives access tokens a type of their own; before it everything was a JWT, or nothing was said.
_TYPES: Final = frozenset({"at+jwt", "application/at+jwt", "jwt"})
# Parameters that bring a key or name a place to fetch one from, or change what the signature covers.
_REFUSED_PARAMETERS: Final = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"})
_SCOPE_PREFIXES: Final = ("postroom:", "postroom.", "postroom/")
# The last day of the year 9999 begins: with a leeway, later instants are none that a datetime can hold.
_LAST_SECOND: Final = 253_402_214_400


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """Whose tokens count, for whom they have to be, and in which claims our words stand."""

    issuer: str
    audience: str
    owner_claim: str = "postroom_owner"
    scope_claim: str = "scope"
    leeway_s: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBearer:
    """Whom a good token speaks for, and the first instant, leeway included, at which it is good no more."""

    principal: Principal
    ends_at: datetime


def looks_like_token(text: str) -> bool:
    """Whether a bearer's text has a JWT's three parts. No API key has a dot."""
    return text.count(".") == 2


def is_token_bearer(principal: Principal) -> bool:
    """Whether somebody calls with a token instead of an API key."""
    return principal.key_id.startswith(KEY_ID_PREFIX)


def read_token(text: str, rules: TokenRules, keys: TokenKeys, now: datetime) -> TokenBearer | None:
    """Whom this token speaks for at `now`; None unless its signature and every claim are as they have to be."""
    if len(text) > MAX_TOKEN_BYTES or not text.isascii() or not looks_like_token(text):
        return None
    parts = [_bytes_of(part) for part in text.split(".")]
    header, claims = _object_in(parts[0]), _object_in(parts[1])
    if header is None or claims is None or parts[2] is None or not _is_signed(text, header, keys):
        return None
    ends_at_s = _valid_until(claims, rules, now.timestamp())
    return None if ends_at_s is None else _bearer(claims, rules, ends_at_s)


def key_id_of(issuer: str, subject: str) -> str:
    """What stands for a subject where a key id stands for a key: never the subject itself, which may be an address."""
    named = json.dumps([issuer, subject]).encode()
    return KEY_ID_PREFIX + hashlib.sha256(named).hexdigest()[:_KEY_ID_DIGITS]


# --- the token itself ------------------------------------------------------------------------------------------------


def _bytes_of(part: str) -> bytes | None:
    """What one part spells. Padding and loose bits at its end are refused: one token is written in one way."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        return None
    return raw if base64.urlsafe_b64encode(raw).rstrip(b"=") == part.encode() else None


def _object_in(raw: bytes | None) -> JsonObject | None:
    """The JSON object in one part. What two readers could read differently, such as a name given twice, is none."""
    try:
        return None if raw is None else parse_object(raw)
    except Rejected:
        return None


def _is_signed(text: str, header: JsonObject, keys: TokenKeys) -> bool:
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in KINDS or _REFUSED_PARAMETERS & header.keys():
        return False
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARACTERS or not _is_type(header.get("typ")):
        return False
    key = keys.find(kid, algorithm)
    if not isinstance(key, KINDS[algorithm]):
        return False
    try:
        jwt.PyJWS(algorithms=[algorithm]).decode(text, key, algorithms=[algorithm])
    except jwt.PyJWTError:
        return False
    return True


def _is_type(said: Any) -> bool:
    return said is None or (isinstance(said, str) and said.lower() in _TYPES)


# --- its claims ------------------------------------------------------------------------------------------------------


def _valid_until(claims: JsonObject, rules: TokenRules, now_s: float) -> float | None:
    if claims.get("iss") != rules.issuer or not _is_for(claims.get("aud"), rules.audience):
        return None
    not_before = [claims[name] for name in ("nbf", "iat") if name in claims]
    if not all(_is_second(each) and each <= now_s + rules.leeway_s for each in not_before):
        return None
    expires = claims.get("exp")
    if not _is_second(expires) or now_s >= expires + rules.leeway_s:
        return None
    return float(expires + rules.leeway_s)


def _is_for(named: Any, audience: str) -> bool:
    return audience in named if isinstance(named, list) else bool(named == audience)


def _is_second(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LAST_SECOND


def _bearer(claims: JsonObject, rules: TokenRules, ends_at_s: float) -> TokenBearer | None:
    subject, owner = claims.get("sub"), claims.get(rules.owner_claim)
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARACTERS:
        return None
    if not isinstance(owner, str) or not OWNER.match(owner):
        return None
    scopes = scopes_in(claims.get(rules.scope_claim), rules.audience)
    key_id = key_id_of(rules.issuer, subject)
    ends_at = datetime.fromtimestamp(ends_at_s, UTC)
    return TokenBearer(
        principal=Principal(owner=owner, key_id=key_id, scopes=scopes, expires_at=ends_at), ends_at=ends_at
    )


def scopes_in(claim: Any, audience: str) -> frozenset[Scope]:
    """The scopes in a claim: words of a text, or a list. Without the claim there are none, so nothing is allowed.

    Providers put the resource's name before its scopes. Words that are not ours mean nothing here.
    """
    named = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else ()
    prefixes = (f"{audience}/", f"{audience}:", *_SCOPE_PREFIXES)
    return frozenset().union(*(_meant(_without(prefixes, word)) for word in named if isinstance(word, str)))


def _meant(word: str) -> frozenset[Scope]:
    try:
        return scopes_named([word])
    except Invalid:
        return frozenset()


def _without(prefixes: tuple[str, ...], word: str) -> str:
    return next((word.removeprefix(prefix) for prefix in prefixes if word.startswith(prefix)), word)
