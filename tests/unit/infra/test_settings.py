"""Settings: from the environment and nothing else, frozen, explained, and silent about passwords."""

import pytest
from pydantic import ValidationError

from infra.settings import GatewaySettings, RouterSettings, UnknownSettings, describe, refuse_unknown_names


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_NATS_URL", "nats://core:s3cr3t@127.0.0.1:4222")
    monkeypatch.setenv("POSTROOM_REDIS_URL", "redis://:s3cr3t@127.0.0.1:6379/0")


def test_settings_come_from_the_environment_and_are_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_HTTP_PORT", "9000")

    settings = GatewaySettings.from_environment()

    assert settings.http_port == 9000
    assert settings.outcome_deadline_s == 900
    with pytest.raises(ValidationError):
        settings.http_port = 1  # type: ignore[misc]  # what is tested


def test_a_password_never_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GatewaySettings.from_environment()
    assert "s3cr3t" not in repr(settings)
    assert "s3cr3t" not in str(describe(GatewaySettings, settings))

    monkeypatch.setenv("POSTROOM_LOG_LEVEL", "s3cr3t")
    with pytest.raises(ValidationError) as caught:
        GatewaySettings.from_environment()
    assert "s3cr3t" not in str(caught.value)


def test_what_is_required_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTROOM_NATS_URL")

    with pytest.raises(ValidationError, match="nats_url"):
        RouterSettings.from_environment()


@pytest.mark.parametrize(
    "url", ["nats://user:pw@host:4222", "nats://host:4222?creds=/x", "http://host:4222", "host:4222", ""]
)
def test_what_monitors_are_told_of_the_broker_is_an_address_and_nothing_secret(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("POSTROOM_NATS_EDGE_URL", url)
    with pytest.raises(ValidationError, match="nats_edge_url"):
        GatewaySettings.from_environment()
    monkeypatch.setenv("POSTROOM_NATS_EDGE_URL", "tls://a:4222,tls://b:4222")
    assert GatewaySettings.from_environment().nats_edge_url == "tls://a:4222,tls://b:4222"


@pytest.mark.parametrize("life_s", ["59", "901"])
def test_a_monitors_credentials_live_for_minutes(monkeypatch: pytest.MonkeyPatch, life_s: str) -> None:
    monkeypatch.setenv("POSTROOM_MONITOR_JWT_S", life_s)
    with pytest.raises(ValidationError, match="monitor_jwt_s"):
        GatewaySettings.from_environment()


def test_who_signs_revocations_has_to_be_able_to_hand_them_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_NATS_OPERATOR_SIGNING_KEY", "/operator-signing.seed")
    with pytest.raises(ValidationError, match="POSTROOM_NATS_SYS_URL"):
        RouterSettings.from_environment()
    monkeypatch.setenv("POSTROOM_NATS_SYS_URL", "nats://host:4222?creds=/sys.creds")
    assert RouterSettings.from_environment().nats_operator_signing_key is not None


def test_a_misspelt_name_is_refused_and_other_programs_names_are_not() -> None:
    refuse_unknown_names({"POSTROOM_HTTP_PORT": "1", "POSTROOM_NATS_STORE_DIR": "x", "PATH": "x"})

    with pytest.raises(UnknownSettings) as caught:
        refuse_unknown_names({"POSTROOM_HTP_PORT": "1", "POSTROOM_NATS_URL": "x"})
    assert caught.value.names == ["POSTROOM_HTP_PORT"]


@pytest.mark.parametrize("model", [GatewaySettings, RouterSettings])
def test_every_setting_has_a_name_a_default_and_a_meaning(model: type[GatewaySettings]) -> None:
    lines = describe(model)

    assert all(line.name.startswith("POSTROOM_") and line.meaning.endswith(".") for line in lines)
    assert {line.name for line in lines if line.default == "required"} == {"POSTROOM_NATS_URL", "POSTROOM_REDIS_URL"}
