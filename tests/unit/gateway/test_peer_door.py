"""The base URL of CueAPI's clients leads to the root, and marks who comes by it."""

import pytest
from starlette.types import Scope

from gateway.peer_door import at_the_root
from gateway.peer_views import is_peers_client


def request(path: str, **more: object) -> Scope:
    return {"type": "http", "path": path, "headers": [(b"host", b"x")], **more}


def test_what_lies_below_their_base_is_asked_at_the_root_by_a_client_of_theirs() -> None:
    before = request("/cueapi/v1/agents/a b", raw_path=b"/cueapi/v1/agents/a%20b")

    asked = at_the_root(before)

    assert (asked["path"], asked["raw_path"]) == ("/v1/agents/a b", b"/v1/agents/a%20b")
    assert is_peers_client(asked["headers"])
    assert not is_peers_client(before["headers"])


@pytest.mark.parametrize("path", ["/v1/agents", "/", "/cueapi", "/cueapis/v1/agents", "/v1/agents/cueapi/inbox"])
def test_every_other_request_stays_as_it_is(path: str) -> None:
    scope = request(path)

    assert at_the_root(scope) is scope


@pytest.mark.parametrize("path", ["/cueapi/metrics", "/cueapi/readyz", "/cueapi/", "/cueapi/v1"])
def test_nothing_but_the_api_has_a_second_way_in(path: str) -> None:
    """A proxy that keeps the metrics in keeps them in by their path."""
    scope = request(path)

    assert at_the_root(scope) is scope


def test_only_the_first_part_is_taken_away() -> None:
    assert at_the_root(request("/cueapi/v1/cueapi/v1/x"))["path"] == "/v1/cueapi/v1/x"
