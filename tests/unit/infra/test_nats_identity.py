"""An installation's identity on disk: made once, complete, for its owner only, and never replaced."""

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.nats_identity import (
    ACCOUNTS,
    BEATS,
    CORE,
    EDGE,
    PUSHES,
    SYS,
    installation_identity,
    read_key,
    read_signer,
)
from infra.nats_jwt import BadCredential, read_creds, read_jwt

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_everything_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = installation_identity(tmp_path / "identity", NOW).folder
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert modes == {True: 0o700, False: 0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()} == {0o600}


def test_it_is_made_once_and_never_replaced(tmp_path: Path) -> None:
    first = contents(installation_identity(tmp_path / "identity", NOW).folder)
    assert contents(installation_identity(tmp_path / "identity", NOW).folder) == first
    assert contents(installation_identity(tmp_path / "another", NOW).folder) != first


def test_programs_that_start_together_agree_on_one_and_leave_nothing_else(tmp_path: Path) -> None:
    def start(_: int) -> str:
        return installation_identity(tmp_path / "identity", NOW).account(CORE).public

    with ThreadPoolExecutor(8) as programs:
        assert len(set(programs.map(start, range(8)))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["identity"]


def test_an_empty_folder_may_be_there_and_another_s_may_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    installation_identity(tmp_path / "empty", NOW)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(BadCredential, match=r"operator\.jwt is missing"):
        installation_identity(tmp_path / "other", NOW)


def test_each_user_belongs_to_its_account_and_is_signed_by_a_signing_key(tmp_path: Path) -> None:
    identity = installation_identity(tmp_path / "identity", NOW)
    for name in ACCOUNTS:
        claims = read_jwt(read_creds(identity.creds_path(name).read_text()).jwt)
        account = identity.accounts[name]
        assert (claims["iss"], claims["nats"]["issuer_account"]) == (account.signing.public, account.public)
        assert account.signing.public != account.public


def test_accounts_are_vouched_for_by_the_operator_s_signing_key(tmp_path: Path) -> None:
    identity = installation_identity(tmp_path / "identity", NOW)
    operator = read_jwt(identity.operator_jwt_path.read_text())
    assert operator["nats"]["signing_keys"] == [identity.operator_signing.public]
    assert operator["nats"]["system_account"] == identity.account(SYS).public
    assert operator["sub"] == operator["iss"] == identity.key("operator").public
    for name in ACCOUNTS:
        claims = read_jwt((identity.jwt_dir / f"{identity.account(name).public}.jwt").read_text())
        assert (claims["iss"], claims["name"]) == (identity.operator_signing.public, name)


def test_the_edge_is_as_narrow_as_it_must_be(tmp_path: Path) -> None:
    identity = installation_identity(tmp_path / "identity", NOW)
    claims = read_jwt((identity.jwt_dir / f"{identity.account(EDGE).public}.jwt").read_text())["nats"]
    limits = claims["limits"]
    assert (limits["conn"], limits["payload"], limits["leaf"]) == (8192, 64 * 1024, 0)
    assert (limits["mem_storage"], limits["disk_storage"], limits["streams"]) == (0, 0, 0)
    assert [each["subject"] for each in claims["imports"]] == list(PUSHES)
    assert {each["account"] for each in claims["imports"]} == {identity.account(CORE).public}
    user = read_jwt(read_creds(identity.creds_path(EDGE).read_text()).jwt)["nats"]
    assert (user["sub"], user["pub"]) == ({"allow": list(PUSHES)}, {"allow": list(BEATS)})


def test_the_gateway_s_signing_key_says_whose_users_it_signs(tmp_path: Path) -> None:
    identity = installation_identity(tmp_path / "identity", NOW)
    signer = read_signer(identity.signer_path(EDGE))
    assert (signer.account, signer.key.public) == (
        identity.account(EDGE).public,
        identity.account(EDGE).signing.public,
    )


def test_a_file_that_holds_no_key_is_named_and_not_shown(tmp_path: Path) -> None:
    identity = installation_identity(tmp_path / "identity", NOW)
    damaged = tmp_path / "damaged.key"
    for text in ("", "secret", f"account {identity.account(EDGE).public}\n", "account x\nseed y\n", "\udcff"):
        damaged.write_text(text, errors="surrogateescape")
        for read in (read_key, read_signer):
            with pytest.raises(BadCredential, match=r"damaged\.key"):
                read(damaged)
    seed = identity.key("operator").seed
    damaged.write_text(f"account {identity.account(EDGE).public}\nseed {seed}\n")
    with pytest.raises(BadCredential, match="another kind") as caught:
        read_signer(damaged)
    assert seed not in str(caught.value)
    with pytest.raises(BadCredential, match="No such file"):
        read_key(tmp_path / "absent")
