"""Answers of the gateway become values, and refusals become failures that say what a person can act on."""

import json
from pathlib import Path

import pytest

from cli import places
from cli.api import connect, read_answer, segment
from cli.failures import Failure, Refused, Unreachable


def test_a_refusal_is_printed_as_code_and_message() -> None:
    problem = {"title": "Conflict", "error": {"code": "already_claimed", "message": "Somebody was faster.", "n": 1}}
    with pytest.raises(Refused, match=r"already_claimed: Somebody was faster\.") as caught:
        read_answer(409, json.dumps(problem).encode())
    assert (caught.value.status, caught.value.code, caught.value.facts["n"]) == (409, "already_claimed", 1)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("content", [b"<html>", b"[1]", b""])
def test_what_is_no_gateway_is_told_from_a_refusal(content: bytes) -> None:
    with pytest.raises(Failure, match="http_200"):
        read_answer(200, content)


def test_no_content_is_an_empty_answer() -> None:
    assert read_answer(204, b"") == {}


def test_a_reference_cannot_leave_its_path_segment() -> None:
    assert segment("a/../b?c#d@max") == "a%2F..%2Fb%3Fc%23d@max"


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_DATA_DIR", str(tmp_path))
    with pytest.raises(Unreachable, match="postroom up"), connect(None, None):
        raise AssertionError


def test_the_running_up_lends_its_key_to_its_own_url_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_DATA_DIR", str(tmp_path))
    run = places.Run(url="http://127.0.0.1:1", api_key="k", nats_url="n", redis_url="r", monitor_state_dir=None, pid=1)
    with places.announced(tmp_path, run):
        with connect(None, None) as api:
            assert (api.url, api.has_key) == ("http://127.0.0.1:1", True)
        with connect("http://elsewhere:1", None) as api:
            assert (api.url, api.has_key) == ("http://elsewhere:1", False)
