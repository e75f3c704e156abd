"""The signature check of forwarded webhooks, and where they may be forwarded to."""

from datetime import UTC, datetime
from typing import cast

import httpx
import pytest

from cli.api import JsonObject
from cli.async_api import AsyncApi
from cli.failures import Misused
from cli.webhook_forward import Forwarder, Forwarding, check, destination
from infra.signing import mint_private_key, mint_webhook_secret, public_key, signed_headers

SECRET, OTHER = mint_webhook_secret(bytes(32)), mint_webhook_secret(bytes(range(32)))
KEY, OTHER_KEY = mint_private_key(bytes(32)), mint_private_key(bytes(range(32)))


def delivery(*secrets: str) -> JsonObject:
    return {"body": "{}", "headers": signed_headers(secrets, "msg_1", datetime.now(UTC), b"{}")}


@pytest.mark.parametrize(
    ("secrets", "secret", "key", "says"),
    [
        ([SECRET], SECRET, None, "valid"),
        ([OTHER, SECRET], SECRET, None, "valid"),
        ([OTHER], SECRET, None, "invalid"),
        ([SECRET], "whsec_no base64", None, "invalid"),
        ([SECRET], None, None, "unchecked"),
        ([KEY], None, KEY, "valid"),
        ([OTHER_KEY, KEY], None, KEY, "valid"),
        ([OTHER_KEY, SECRET], SECRET, KEY, "invalid"),
    ],
)
def test_a_signature_is_checked_with_whatever_there_is(
    secrets: list[str], secret: str | None, key: str | None, says: str
) -> None:
    assert check(delivery(*secrets), secret=secret, public_key=public_key(key) if key else None) == says


class Fetched:
    """An API that has one webhook to fetch."""

    async def get(self, path: str) -> JsonObject:
        return {**delivery(SECRET), "message_id": "msg_1", "execution_id": "exec_1"}


async def test_a_program_whose_answer_cannot_be_read_ends_no_listening(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, content=b"no gzip")

    wanted = Forwarding(agent="cue-hook", to="http://localhost:3000/hook", secret=SECRET, as_json=True)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        forwarder = Forwarder(cast(AsyncApi, Fetched()), client, wanted, None)
        assert not await forwarder.forward("exec_1")
    assert '"error": "DecodingError"' in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "localhost:3000", "file:///etc/passwd", "http://", "/hook"])
def test_what_is_no_url_is_the_callers_mistake(text: str) -> None:
    with pytest.raises(Misused):
        destination(text)
