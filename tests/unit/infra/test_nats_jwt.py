"""JWTs and keys of NATS: what is written is read back, what was changed is not believed, and seeds stay hidden."""

from datetime import UTC, datetime, timedelta

import pytest

from infra.nats_jwt import (
    EVERYBODY,
    Account,
    AccountLimits,
    BadCredential,
    Creds,
    Import,
    User,
    account_jwt,
    creds_text,
    operator_jwt,
    read_creds,
    read_jwt,
    user_jwt,
)
from infra.nats_keys import BadKey, Kind, NatsKey, is_signed, require_public

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
OPERATOR, ACCOUNT, OTHER, USER = (
    NatsKey.fresh(kind) for kind in (Kind.OPERATOR, Kind.ACCOUNT, Kind.ACCOUNT, Kind.USER)
)
SEED = "SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU"
PUBLIC = "UCK5N7N66OBOINFXAYC2ACJQYFSOD4VYNU6APEJTAVFZB2SVHLKGEW7L"
"""The pair of nats-py's own examples."""


@pytest.mark.parametrize(("kind", "letter"), [(Kind.OPERATOR, "O"), (Kind.ACCOUNT, "A"), (Kind.USER, "U")])
def test_a_fresh_key_is_its_own_and_comes_back_from_its_seed(kind: Kind, letter: str) -> None:
    key = NatsKey.fresh(kind)
    again = NatsKey(key.seed)
    assert (again.public, again.kind) == (key.public, kind)
    assert key.public.startswith(letter)
    assert key.seed.startswith(f"S{letter}")
    assert is_signed(b"text", again.sign(b"text"), key.public, kind)
    assert NatsKey.fresh(kind).seed != key.seed


def test_a_known_seed_has_the_known_public_key() -> None:
    assert NatsKey(SEED).public == PUBLIC


@pytest.mark.parametrize("text", ["", "x", PUBLIC, SEED[:-1], SEED.lower(), f"{SEED[:20]}B{SEED[21:]}", "é" * 58])
def test_a_damaged_seed_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(BadKey) as caught:
        NatsKey(text)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("text", ["", "x", SEED, f"{PUBLIC[:20]}B{PUBLIC[21:]}", PUBLIC[:-1], ACCOUNT.public, "ü"])
def test_only_a_user_s_public_key_is_one(text: str) -> None:
    require_public(PUBLIC, Kind.USER)
    with pytest.raises(BadKey):
        require_public(text, Kind.USER)


def test_neither_keys_nor_credentials_show_a_secret() -> None:
    jwt = user_jwt(ACCOUNT, User(public=USER.public, name="u", account=ACCOUNT.public), NOW)
    shown = f"{USER!r} {USER} {Creds(jwt=jwt, key=USER)!r}"
    assert USER.seed not in shown
    assert jwt not in shown


def test_a_user_s_claims_are_those_of_version_2() -> None:
    user = User(
        public=USER.public,
        name="monitor m1",
        account=ACCOUNT.public,
        subscribe=["live.agent_1.>"],
        publish=["hb.m1"],
        subscriptions=8,
        payload_bytes=1024,
        expires_at=NOW + timedelta(minutes=15),
    )
    claims = read_jwt(user_jwt(OTHER, user, NOW))
    assert len(claims.pop("jti")) == 52
    assert claims == {
        "iat": SECONDS,
        "exp": SECONDS + 900,
        "iss": OTHER.public,
        "sub": USER.public,
        "name": "monitor m1",
        "nats": {
            "type": "user",
            "version": 2,
            "issuer_account": ACCOUNT.public,
            "sub": {"allow": ["live.agent_1.>"]},
            "pub": {"allow": ["hb.m1"]},
            "subs": 8,
            "data": -1,
            "payload": 1024,
            "allowed_connection_types": ["STANDARD"],
        },
    }


def test_an_empty_list_of_subjects_denies_all_and_none_allows_all() -> None:
    nobody = User(public=USER.public, name="u", account=ACCOUNT.public, subscribe=[], publish=[])
    claims = read_jwt(user_jwt(ACCOUNT, nobody, NOW))["nats"]
    assert claims["sub"] == claims["pub"] == {"deny": [">"]}
    anybody = User(public=USER.public, name="u", account=ACCOUNT.public)
    claims = read_jwt(user_jwt(ACCOUNT, anybody, NOW))["nats"]
    assert claims["sub"] == claims["pub"] == {}


def test_an_account_s_claims_carry_exports_imports_limits_and_revocations() -> None:
    account = Account(
        public=ACCOUNT.public,
        name="EDGE",
        signing_keys=[OTHER.public],
        exports=["hb.>"],
        imports=[Import(subject="live.>", account=OTHER.public, activation="token")],
        limits=AccountLimits(connections=3, payload_bytes=64),
        revoked_at={USER.public: NOW, EVERYBODY: NOW - timedelta(days=1)},
    )
    claims = read_jwt(account_jwt(OPERATOR, account, NOW))
    nats = claims["nats"]
    assert (claims["iss"], claims["sub"], claims["name"]) == (OPERATOR.public, ACCOUNT.public, "EDGE")
    assert nats["signing_keys"] == [OTHER.public]
    assert nats["exports"] == [{"name": "hb.>", "subject": "hb.>", "type": "stream", "token_req": True}]
    assert nats["imports"][0]["account"] == OTHER.public
    assert nats["imports"][0]["token"] == "token"
    assert nats["revocations"] == {USER.public: SECONDS, "*": SECONDS - 86_400}
    limits = nats["limits"]
    assert (limits["conn"], limits["payload"], limits["leaf"], limits["disk_storage"]) == (3, 64, 0, 0)


def test_the_operator_demands_signing_keys_and_names_the_system_account() -> None:
    jwt = operator_jwt(OPERATOR, name="x", signing_keys=["OKEY"], system_account=ACCOUNT.public, now=NOW)
    claims = read_jwt(jwt)["nats"]
    assert claims["strict_signing_key_usage"] is True
    assert (claims["signing_keys"], claims["system_account"]) == (["OKEY"], ACCOUNT.public)


def test_a_jwt_that_was_changed_or_is_none_is_not_believed() -> None:
    jwt = user_jwt(ACCOUNT, User(public=USER.public, name="u", account=ACCOUNT.public), NOW)
    header, payload, signature = jwt.split(".")
    other = user_jwt(ACCOUNT, User(public=USER.public, name="v", account=ACCOUNT.public), NOW).split(".")[1]
    for text in ("", "a.b", "a.b.c", f"{header}.{other}.{signature}", f"{header}.{payload}.", f"{payload}.{payload}.x"):
        with pytest.raises(BadCredential):
            read_jwt(text)
    assert read_jwt(jwt)["name"] == "u"


def test_keys_of_the_wrong_kind_are_no_users_and_no_accounts() -> None:
    with pytest.raises(BadKey):
        user_jwt(ACCOUNT, User(public=ACCOUNT.public, name="u", account=ACCOUNT.public), NOW)
    with pytest.raises(BadKey):
        user_jwt(ACCOUNT, User(public=USER.public, name="u", account=USER.public), NOW)
    with pytest.raises(BadKey):
        account_jwt(OPERATOR, Account(public=USER.public, name="x"), NOW)


def test_a_creds_file_is_read_back_and_its_parts_belong_together() -> None:
    jwt = user_jwt(ACCOUNT, User(public=USER.public, name="u", account=ACCOUNT.public), NOW)
    text = creds_text(jwt, USER)
    creds = read_creds(text)
    assert (creds.jwt, creds.key.seed) == (jwt, USER.seed)
    assert read_creds(text.replace("\n", "\r\n")).jwt == jwt
    for broken in ("", text.replace(USER.seed, SEED), text.replace(jwt, "x.y.z"), text.replace("BEGIN NATS", "BEGIN")):
        with pytest.raises(BadCredential) as caught:
            read_creds(broken)
        assert USER.seed not in str(caught.value)
        assert SEED not in str(caught.value)
