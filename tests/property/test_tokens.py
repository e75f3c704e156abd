"""Whatever stands in a token, reading it answers; and nothing but the provider's own signature makes it count."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.oidc import TokenRules, read_token
from gateway.ports import PublicKey
from tests.oidc_provider import AUDIENCE, Issuer, encoded, signer, written

ISSUER = Issuer()
RULES = TokenRules(issuer=ISSUER.url, audience=AUDIENCE)
GOOD = ISSUER.token("EdDSA")
MADE_AT = datetime.now(UTC)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
PARAMETERS = st.sampled_from(["alg", "kid", "typ", "jwk", "jku", "x5u", "crit", "b64", "x"])
ALGORITHMS = st.sampled_from(["none", "HS256", "RS256", "ES256", "EdDSA", ""])
HEADERS = st.dictionaries(PARAMETERS, JSON | ALGORITHMS | st.sampled_from(["rsa-key", "ec-key", "ed-key"]))
CLAIMS = st.dictionaries(
    st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "scope", "postroom_owner"]), JSON, max_size=3
)


class Keys:
    """The provider's keys, for whatever algorithm is asked."""

    def find(self, kid: str, _: str) -> PublicKey | None:
        found: Any = next((each.private.public_key() for each in ISSUER.signers if each.kid == kid), None)
        return found  # type: ignore[no-any-return]


def counts(token: str) -> bool:
    return read_token(token, RULES, Keys(), MADE_AT) is not None


@given(st.text(alphabet=st.sampled_from("eyJ.-_=A1é\0 "), max_size=60) | st.text(max_size=40))
def test_no_text_is_a_token_by_accident(text: str) -> None:
    assert not counts(text)


@given(HEADERS, st.binary(max_size=64))
def test_no_header_makes_a_token_count_without_a_signature(header: dict[str, Any], signature: bytes) -> None:
    assert not counts(written(header, ISSUER.claims(), lambda _: signature))


@given(CLAIMS)
def test_any_claims_are_read_without_an_error_and_never_for_another_audience(changes: dict[str, Any]) -> None:
    claims = {**ISSUER.claims(), **changes}
    token = written({"alg": "EdDSA", "kid": "ed-key"}, json.dumps(claims), signer("ed").sign("EdDSA"))

    if counts(token):
        assert claims["iss"] == ISSUER.url
        assert claims["aud"] == AUDIENCE or AUDIENCE in claims["aud"]


@settings(max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.sampled_from("AB.-_="))
def test_one_character_changed_is_another_token(place: int, character: str) -> None:
    assert counts(GOOD)
    assert counts(GOOD[:place] + character + GOOD[place + 1 :]) is (GOOD[place] == character)


@given(st.binary(max_size=40))
def test_what_is_signed_is_read_as_it_is_written(raw: bytes) -> None:
    header = encoded({"alg": "EdDSA", "kid": "ed-key"})
    signed = f"{header}.{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"

    assert not counts(f"{signed}.{encoded(signer('ed').sign('EdDSA')(signed.encode()))}")
