"""Tokens of an OpenID provider: which count, for whom they speak, and everything that does not count."""

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from contracts.words import Scope
from gateway.oidc import KEY_ID_PREFIX, TokenBearer, TokenRules, key_id_of, read_token, scopes_in
from gateway.ports import PublicKey
from tests.oidc_provider import AUDIENCE, Issuer, bad_tokens, signer

ISSUER = Issuer()
BAD = bad_tokens(ISSUER)
RULES = TokenRules(issuer=ISSUER.url, audience=AUDIENCE)


class AllKeys:
    """Every key for every algorithm, as no key store of ours answers: what is refused here is refused by the reader."""

    def find(self, kid: str, _: str) -> PublicKey | None:
        found = next((each for each in ISSUER.signers if each.kid == kid), None)
        public: Any = found.private.public_key() if found else None
        return public  # type: ignore[no-any-return]


def read(token: str, now: datetime | None = None, rules: TokenRules = RULES) -> TokenBearer | None:
    return read_token(token, rules, AllKeys(), now or datetime.now(UTC))


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_a_good_token_of_each_algorithm_says_whose_it_is(algorithm: str) -> None:
    token = ISSUER.token(algorithm)
    found = read(token)

    assert found is not None
    assert (found.principal.owner, found.principal.admin) == ("max", False)
    assert found.principal.scopes == frozenset({Scope.MESSAGES_SEND, Scope.MESSAGES_READ, Scope.AGENTS_READ})
    ends_at_s = jwt.decode(token, options={"verify_signature": False})["exp"] + RULES.leeway_s
    assert found.ends_at == datetime.fromtimestamp(ends_at_s, UTC)


@pytest.mark.parametrize("fault", sorted(BAD))
def test_a_bad_token_speaks_for_nobody(fault: str) -> None:
    assert read(BAD[fault]) is None


def test_the_instants_of_a_token_hold_within_the_leeway_and_not_a_second_beyond() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    second = int(start.timestamp())
    token = ISSUER.token(iat=second, nbf=second, exp=second + 60)

    assert read(token, start - timedelta(seconds=31)) is None
    assert read(token, start - timedelta(seconds=30)) is not None
    assert read(token, start + timedelta(seconds=89)) is not None
    assert read(token, start + timedelta(seconds=90)) is None


@pytest.mark.parametrize("said", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
def test_a_token_may_say_what_it_is_or_nothing(said: str | None) -> None:
    assert read(ISSUER.token(header={"typ": said})) is not None


def test_an_audience_may_be_one_of_several() -> None:
    assert read(ISSUER.token(aud=["another", AUDIENCE])) is not None


def test_owner_and_scopes_are_read_from_the_claims_the_installation_names() -> None:
    rules = TokenRules(issuer=ISSUER.url, audience=AUDIENCE, owner_claim="https://x/tenant", scope_claim="scp")
    claims: dict[str, Any] = {"https://x/tenant": "zoe", "scp": ["agents:manage"]}
    found = read(ISSUER.token(**claims), rules=rules)

    assert found is not None
    assert (found.principal.owner, found.principal.scopes) == ("zoe", frozenset({Scope.AGENTS_MANAGE}))


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("messages:send", {Scope.MESSAGES_SEND}),
        (
            "postroom:messages:send postroom/agents:read postroom.cues:manage",
            {"messages:send", "agents:read", "cues:manage"},
        ),
        (f"{AUDIENCE}/messages:send {AUDIENCE}:agents:read", {"messages:send", "agents:read"}),
        (["messages:send", 7, None, {"a": 1}], {"messages:send"}),
        ("openid profile admin * messages:* MESSAGES:SEND other/messages:send", set()),
        ("mobius.agent.read job.emit_event", {"agents:read", "executions:claim"}),
        ("", set()),
        (None, set()),
        ({"messages:send": True}, set()),
        (True, set()),
    ],
)
def test_only_our_own_words_become_scopes(claim: object, expected: set[str]) -> None:
    assert scopes_in(claim, AUDIENCE) == expected


def test_without_a_scope_claim_nothing_is_allowed() -> None:
    found = read(ISSUER.token(scope=None))

    assert found is not None
    assert found.principal.scopes == frozenset()


def test_a_subject_is_known_by_a_hash_that_no_other_issuer_or_subject_has() -> None:
    names = {
        key_id_of("https://a", "max@example.com"),
        key_id_of("https://a", "eve@example.com"),
        key_id_of("https://b", "max@example.com"),
        key_id_of("https://a,max", "@example.com"),
    }

    assert len(names) == 4
    assert all(len(name) == len(KEY_ID_PREFIX) + 12 and "max" not in name for name in names)
    assert key_id_of("https://a", "max@example.com") in names


def test_the_catalogue_differs_from_good_tokens_only_in_what_it_names() -> None:
    assert read(ISSUER.token()) is not None
    assert read(ISSUER.token(by=signer("rsa"))) is not None
