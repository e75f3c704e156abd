"""The broker's URL: servers, who we are, how to encrypt; and errors that name the file and never show what it holds."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.broker_url import BadBrokerUrl, BrokerUrl, TlsFiles, broker_url
from infra.nats_identity import CORE, installation_identity

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_one_string_names_servers_and_credentials() -> None:
    found = BrokerUrl.parse("nats://a:4222,nats://b:4223?creds=/etc/core.creds")
    assert found.servers == ("nats://a:4222", "nats://b:4223")
    assert (found.creds_file, found.tls_files) == (Path("/etc/core.creds"), None)


def test_tls_has_its_files() -> None:
    found = BrokerUrl.parse("tls://a:4222?creds=c&tls_ca=/ca.pem&tls_cert=/c.pem&tls_key=/c.key")
    assert found.tls_files == TlsFiles(ca=Path("/ca.pem"), cert=Path("/c.pem"), key=Path("/c.key"))
    assert BrokerUrl.parse("tls://a").tls_files == TlsFiles()


def test_a_user_and_a_password_still_work_and_are_not_shown() -> None:
    found = BrokerUrl.parse("nats://core:hush@a:4222")
    assert found.servers == ("nats://core:hush@a:4222",)
    assert "hush" not in repr(found)
    assert found.creds() is None
    assert found.tls() is None


def test_paths_with_any_character_travel() -> None:
    path = Path("/a b/c&d?e=f,g%20/core.creds")
    assert BrokerUrl.parse(broker_url("nats://a:1", "nats://b:2", creds=path)).creds_file == path


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a:4222",
        "http://a",
        "nats://",
        "nats://a:x",
        "nats://a:99999",
        "nats://a/path",
        "nats://a,",
        "nats://a,tls://b",
        "nats://u:hush@a?nonsense=1",
        "nats://a?creds=",
        "nats://a?creds=x&creds=y",
        "nats://a?tls_ca=/ca.pem",
        "tls://a?tls_key=/k.pem",
    ],
)
def test_what_is_no_broker_s_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(BadBrokerUrl) as caught:
        BrokerUrl.parse(url)
    assert "hush" not in str(caught.value)


def test_a_creds_file_is_read_each_time(tmp_path: Path) -> None:
    identity = installation_identity(tmp_path / "identity", NOW)
    address = BrokerUrl.parse(broker_url("nats://a:1", creds=identity.creds_path(CORE)))
    before = address.creds()
    other = installation_identity(tmp_path / "other", NOW)
    identity.creds_path(CORE).write_bytes(other.creds_path(CORE).read_bytes())
    after = address.creds()
    assert before is not None
    assert after is not None
    assert before.key.public != after.key.public


def test_a_file_that_is_absent_or_no_creds_file_is_named_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "core.creds"
    address = BrokerUrl.parse(broker_url("nats://a:1", creds=file))
    with pytest.raises(BadBrokerUrl, match=r"core\.creds cannot be read: No such file"):
        address.creds()
    identity = installation_identity(tmp_path / "identity", NOW)
    text = identity.creds_path(CORE).read_text()
    seed = text.split()[-5]
    assert seed.startswith("SU")
    for damaged in (b"", b"hush", b"\xff\xfe", text.replace("BEGIN USER", "BEGIN").encode(), text[:200].encode()):
        file.write_bytes(damaged)
        with pytest.raises(BadBrokerUrl, match=r"core\.creds is not one") as caught:
            address.creds()
        assert "hush" not in str(caught.value)
        assert seed not in str(caught.value)


def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    address = BrokerUrl.parse(f"tls://a?tls_ca={file}")
    with pytest.raises(BadBrokerUrl, match=r"ca\.pem"):
        address.tls()
    file.write_text("hush")
    with pytest.raises(BadBrokerUrl, match=r"ca\.pem") as caught:
        address.tls()
    assert "hush" not in str(caught.value)
