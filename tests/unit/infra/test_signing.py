"""Signatures: the reference library verifies what is signed, and refuses what was changed."""

import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from infra.signing import mint_private_key, mint_webhook_secret, public_key, signed_headers
from tests.webhook_verifier import verifies

BODY = '{"text":"grüße\\n"}'.encode()
SECRET = mint_webhook_secret(bytes(range(32)))
OTHER = mint_webhook_secret(bytes(range(1, 65)))


def present() -> datetime:
    return datetime.now(UTC)


def test_the_reference_library_verifies_a_signature_over_the_raw_bytes() -> None:
    headers = signed_headers([SECRET], "msg_1", present(), BODY)
    assert Webhook(SECRET).verify(BODY, headers) == {"text": "grüße\n"}


@pytest.mark.parametrize("secret", [SECRET, OTHER])
def test_during_a_rotation_either_secret_verifies(secret: str) -> None:
    headers = signed_headers([SECRET, OTHER], "msg_1", present(), BODY)
    assert len(headers["webhook-signature"].split(" ")) == 2
    Webhook(secret).verify(BODY, headers)


@pytest.mark.parametrize("change", ["body", "webhook-id", "webhook-timestamp", "secret"])
def test_nothing_that_was_signed_can_be_changed(change: str) -> None:
    headers = signed_headers([SECRET], "msg_1", present() - timedelta(seconds=5), BODY)
    secret = OTHER if change == "secret" else SECRET
    body = BODY.replace(b"text", b"tent") if change == "body" else BODY
    changed = {**headers, change: {"webhook-id": "msg_2"}.get(change, str(int(present().timestamp())))}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, changed)


def test_the_specification_s_form_is_kept_byte_for_byte() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC)
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    assert signed_headers([secret], "msg_1", at, b"{}") == {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1767323045",
        "webhook-signature": "v1,UK9ZcOviAjjG5rlv1QhdslO4+pnJGOlKjXLFpnUjElg=",
    }


def test_an_instant_of_another_zone_is_the_same_instant() -> None:
    at = present()
    elsewhere = at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert signed_headers([SECRET], "msg_1", elsewhere, BODY) == signed_headers([SECRET], "msg_1", at, BODY)


def test_a_secret_without_prefix_or_padding_is_the_same_secret() -> None:
    at = present()
    bare = SECRET.removeprefix("whsec_").rstrip("=")
    assert signed_headers([bare], "msg_1", at, BODY) == signed_headers([SECRET], "msg_1", at, BODY)


@pytest.mark.parametrize("n_bytes", [24, 32, 64])
def test_a_minted_secret_carries_its_random_bytes(n_bytes: int) -> None:
    secret = mint_webhook_secret(bytes(n_bytes))
    assert secret.startswith("whsec_")
    assert base64.b64decode(secret.removeprefix("whsec_")) == bytes(n_bytes)


@pytest.mark.parametrize("n_bytes", [0, 23, 65])
def test_secrets_too_short_or_too_long_are_not_minted(n_bytes: int) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        mint_webhook_secret(bytes(n_bytes))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_short", "whsec_" + "é" * 40, "whsec_" + "*" * 44])
def test_a_malformed_secret_signs_nothing(secret: str) -> None:
    with pytest.raises(ValueError):
        signed_headers([secret], "msg_1", present(), BODY)


def test_without_a_secret_nothing_is_signed() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        signed_headers([], "msg_1", present(), BODY)


@pytest.mark.parametrize("message_id", ["", "msg.1", "msg 1", "msg\r\nx: y", "msg_1\n", "mäg"])
def test_an_id_that_could_be_read_twice_signs_nothing(message_id: str) -> None:
    with pytest.raises(ValueError, match="message id"):
        signed_headers([SECRET], message_id, present(), BODY)


PRIVATE = mint_private_key(bytes(range(32)))


def test_an_asymmetric_signature_is_verified_with_the_public_key_alone() -> None:
    headers = signed_headers([PRIVATE], "msg_1", present(), BODY)
    key = public_key(PRIVATE)

    assert key is not None
    assert key.startswith("whpk_")
    assert headers["webhook-signature"].startswith("v1a,")
    assert verifies(key, headers, BODY)
    assert not verifies(key, headers, BODY + b" ")
    assert not verifies(key, {**headers, "webhook-id": "msg_2"}, BODY)


def test_a_rotation_from_one_kind_to_the_other_is_verified_by_either() -> None:
    headers = signed_headers([PRIVATE, SECRET], "msg_1", present(), BODY)

    Webhook(SECRET).verify(BODY, headers)
    assert verifies(SECRET, headers, BODY)
    assert verifies(str(public_key(PRIVATE)), headers, BODY)
    assert not verifies(OTHER, headers, BODY)


def test_a_shared_secret_has_no_public_key() -> None:
    assert public_key(SECRET) is None


@pytest.mark.parametrize("n_bytes", [0, 31, 33, 64])
def test_signing_keys_of_another_length_are_not_minted(n_bytes: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        mint_private_key(bytes(n_bytes))
