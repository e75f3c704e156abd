"""An OpenID provider for tests: real keys, tokens written by hand, and a server on loopback that can be slow or away.

async with provider() as issuer:
    issuer.token(postroom_owner="max")     # signed by the newest key
    issuer.rotate(); issuer.is_away = True
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import anyio
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import AllowedPrivateKeys, get_default_algorithms

Json = dict[str, Any]
AUDIENCE: Final = "postroom-tests"
KINDS: Final = {"RS256": "rsa", "PS256": "rsa", "ES256": "ec", "EdDSA": "ed"}
DISCOVERY: Final = "/.well-known/openid-configuration"
Sign = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, under the name its public half has in the key set."""

    kid: str
    private: AllowedPrivateKeys
    alg: str | None = None

    @property
    def jwk(self) -> Json:
        public = self.private.public_key()
        algorithm = {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}[self.kind]
        jwk: Json = json.loads(get_default_algorithms()[algorithm].to_jwk(public))
        return {**jwk, "kid": self.kid, "use": "sig", **({"alg": self.alg} if self.alg else {})}

    @property
    def kind(self) -> str:
        if isinstance(self.private, rsa.RSAPrivateKey):
            return "rsa"
        return "ec" if isinstance(self.private, ec.EllipticCurvePrivateKey) else "ed"

    def sign(self, algorithm: str) -> Sign:
        known = get_default_algorithms()[algorithm]
        return lambda signed: known.sign(signed, self.private)

    @property
    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def new_private(kind: str) -> AllowedPrivateKeys:
    match kind:
        case "rsa":
            return rsa.generate_private_key(65_537, 2048)
        case "ec":
            return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


@cache
def signer(kind: str, name: str = "") -> Signer:
    """A key of this kind, the same for the whole run of the tests."""
    return Signer(f"{kind}-key{name}", new_private(kind))


def encoded(value: Json | str | bytes) -> str:
    raw = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def written(header: Json | str, claims: Json | str, sign: Sign) -> str:
    """A token of exactly this header and these claims, whatever they are."""
    signed = f"{encoded(header)}.{encoded(claims)}"
    return f"{signed}.{encoded(sign(signed.encode()))}"


def hs256(secret: bytes) -> Sign:
    return lambda signed: hmac.new(secret, signed, hashlib.sha256).digest()


@dataclass(slots=True)
class Issuer:
    """What the provider says, to be changed at will, and how often it was asked."""

    url: str = "https://issuer.example"
    signers: list[Signer] = field(default_factory=lambda: [signer(kind) for kind in ("rsa", "ec", "ed")])
    more_jwks: list[Any] = field(default_factory=list)
    is_away: bool = False
    delay_s: float = 0
    redirects: bool = False
    document: bytes | None = None
    discovery: Json = field(default_factory=dict)
    asked: int = 0

    def claims(self, **more: Any) -> Json:
        """Good claims; None among `more` leaves one out."""
        now = int(time.time())
        good = {
            "iss": self.url,
            "sub": "somebody@example.com",
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 300,
            "postroom_owner": "max",
            "scope": "openid messages:send messages:read agents:read",
        }
        return {name: value for name, value in {**good, **more}.items() if value is not None}

    def token(
        self, algorithm: str = "RS256", *, header: Json | None = None, by: Signer | None = None, **more: Any
    ) -> str:
        chosen = by or next(each for each in reversed(self.signers) if each.kind == KINDS[algorithm])
        whole = {"alg": algorithm, "kid": chosen.kid, "typ": "at+jwt", **(header or {})}
        whole = {name: value for name, value in whole.items() if value is not None}
        return written(whole, self.claims(**more), chosen.sign(algorithm))

    def rotate(self) -> None:
        """Sign with new keys from now on; the old ones are not named any more."""
        self.signers = [Signer(f"{each.kind}-{time.monotonic_ns()}", new_private(each.kind)) for each in self.signers]

    def key_set(self) -> Json:
        return {"keys": [*self.more_jwks, *(each.jwk for each in self.signers)]}

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        await anyio.sleep(self.delay_s)
        if self.is_away:
            raise web.HTTPServiceUnavailable
        if request.path == DISCOVERY:
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/jwks", **self.discovery})
        if self.redirects and request.path == "/jwks":
            raise web.HTTPFound(f"{self.url}/moved")
        if self.document is not None:
            return web.Response(body=self.document, content_type="application/json")
        return web.json_response(self.key_set())


def bad_tokens(issuer: Issuer) -> dict[str, str]:
    """What must not count, by what is wrong with it."""
    return {**_bad_times(issuer), **_bad_claims(issuer), **_bad_headers(issuer), **_bad_signatures(issuer)}


def _bad_times(issuer: Issuer) -> dict[str, str]:
    now = int(time.time())
    return {
        "expired": issuer.token(exp=now - 31, iat=now - 600),
        "no exp": issuer.token(exp=None),
        "exp is text": issuer.token(exp=str(now + 300)),
        "exp is true": issuer.token(exp=True),
        "exp beyond time": issuer.token(exp=10**18),
        "not yet": issuer.token(nbf=now + 120),
        "nbf is null": written(
            {"alg": "RS256", "kid": "rsa-key", "typ": "JWT"},
            {**issuer.claims(), "nbf": None},
            signer("rsa").sign("RS256"),
        ),
        "nbf is true": issuer.token(nbf=True),
        "issued in the future": issuer.token(iat=now + 120),
    }


def _bad_claims(issuer: Issuer) -> dict[str, str]:
    double = json.dumps(issuer.claims())[:-1] + ', "postroom_owner": "eve"}'
    header = {"alg": "RS256", "kid": signer("rsa").kid, "typ": "at+jwt"}
    return {
        "another audience": issuer.token(aud="somebody-else"),
        "no audience": issuer.token(aud=None),
        "audience is part of a text": issuer.token(aud=f"x{AUDIENCE}y"),
        "audience in an object": issuer.token(aud={AUDIENCE: 1}),
        "another issuer": issuer.token(iss="https://evil.example"),
        "issuer with a slash": issuer.token(iss=f"{issuer.url}/"),
        "no issuer": issuer.token(iss=None),
        "no subject": issuer.token(sub=None),
        "empty subject": issuer.token(sub=""),
        "subject is a number": issuer.token(sub=7),
        "long subject": issuer.token(sub="s" * 256),
        "no owner": issuer.token(postroom_owner=None),
        "owner with a star": issuer.token(postroom_owner="*"),
        "owner with a dot": issuer.token(postroom_owner="max.eve"),
        "owner in capitals": issuer.token(postroom_owner="Max"),
        "owner with a newline": issuer.token(postroom_owner="max\n"),
        "two owners": issuer.token(postroom_owner=["max", "eve"]),
        "a claim given twice": written(header, double, signer("rsa").sign("RS256")),
        "claims are a list": written(header, "[1]", signer("rsa").sign("RS256")),
        "claims are no JSON": written(header, "{", signer("rsa").sign("RS256")),
        "claims hold NaN": written(header, '{"exp": NaN}', signer("rsa").sign("RS256")),
        "huge": issuer.token(filler="x" * 8_192),
    }


def _bad_headers(issuer: Issuer) -> dict[str, str]:
    stranger = signer("rsa", "-of-a-stranger")
    brought = {name: value for name, value in stranger.jwk.items() if name != "kid"}
    double = f'{{"alg": "none", "alg": "RS256", "kid": "{signer("rsa").kid}"}}'
    return {
        "a key of its own": issuer.token(by=stranger, header={"jwk": brought, "kid": signer("rsa").kid}),
        "a good key brought along": issuer.token(header={"jwk": signer("rsa").jwk}),
        "a place for keys": issuer.token(header={"jku": f"{issuer.url}/jwks"}),
        "a place for certificates": issuer.token(header={"x5u": f"{issuer.url}/x5u"}),
        "certificates": issuer.token(header={"x5c": ["MIIB"]}),
        "critical parameters": issuer.token(header={"crit": ["exp"], "exp": 1}),
        "unencoded payload": issuer.token(header={"b64": False}),
        "no kid": issuer.token(header={"kid": None}),
        "unknown kid": issuer.token(header={"kid": "nobody"}),
        "kid with a path": issuer.token(header={"kid": "../../../dev/null"}),
        "kid with a quote": issuer.token(header={"kid": "x' OR '1'='1"}),
        "kid is a list": issuer.token(header={"kid": [signer("rsa").kid]}),
        "long kid": issuer.token(header={"kid": "k" * 300}),
        "another type": issuer.token(header={"typ": "dpop+jwt"}),
        "type is a number": issuer.token(header={"typ": 1}),
        "algorithm given twice": written(double, issuer.claims(), signer("rsa").sign("RS256")),
    }


def _bad_signatures(issuer: Issuer) -> dict[str, str]:
    good, pem = issuer.token(), signer("rsa").public_pem
    head, body, signature = good.split(".")
    header = {"kid": signer("rsa").kid, "typ": "at+jwt"}
    nothing: Sign = lambda _: b""  # noqa: E731 - a signature that is none
    jwk_text = json.dumps(signer("rsa").jwk).encode()
    return {
        "alg none": written({**header, "alg": "none"}, issuer.claims(), nothing),
        "alg None": written({**header, "alg": "None"}, issuer.claims(), nothing),
        "no alg": written(header, issuer.claims(), nothing),
        "alg is a list": written({**header, "alg": ["RS256"]}, issuer.claims(), signer("rsa").sign("RS256")),
        "no signature": f"{head}.{body}.",
        "HS256 with the public key": written({**header, "alg": "HS256"}, issuer.claims(), hs256(pem)),
        "HS256 with the key set": written({**header, "alg": "HS256"}, issuer.claims(), hs256(jwk_text)),
        "an algorithm not taken": issuer.token(header={"alg": "RS512"}),
        "another key's name": issuer.token(by=signer("rsa", "-of-a-stranger"), header={"kid": signer("rsa").kid}),
        "a key of another kind": issuer.token("ES256", header={"kid": signer("rsa").kid}),
        "an algorithm of another kind": issuer.token("ES256", header={"alg": "RS256"}),
        "the other RSA scheme": issuer.token("PS256", header={"alg": "RS256"}),
        "tampered claims": f"{head}.{encoded(issuer.claims(postroom_owner='eve'))}.{signature}",
        "tampered signature": f"{head}.{body}.{_changed(signature)}",
        "signature with padding": f"{good}==",
        "another alphabet": f"{head}.{body}.+/{signature[2:]}",
        "four parts": f"{good}.{signature}",
        "two parts": f"{head}.{body}",
        "empty parts": "..",
        "beyond ASCII": f"{head}.{body}é.{signature}",
    }


def _changed(text: str) -> str:
    return text[:9] + ("B" if text[9] == "A" else "A") + text[10:]


@asynccontextmanager
async def provider() -> AsyncIterator[Issuer]:
    """A provider on a free port of this machine, until the block ends."""
    issuer = Issuer()
    app = web.Application()
    app.router.add_get(DISCOVERY, issuer.answer)
    app.router.add_get("/jwks", issuer.answer)
    app.router.add_get("/moved", issuer.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield issuer
    finally:
        await runner.cleanup()
