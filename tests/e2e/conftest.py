"""Fixtures of the command line: one running `up` for each file of tests, and commands that speak to it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli_rig import Postroom, ok, running_up, speaking_as


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def server(data_dir: Path) -> Iterator[dict[str, Any]]:
    with running_up(data_dir) as told:
        yield told


@pytest.fixture(scope="module")
def postroom(server: dict[str, Any]) -> Postroom:
    """A command that speaks as owner max."""
    return speaking_as("max", server)


@pytest.fixture
def agent(postroom: Postroom, prefix: str) -> str:
    """A fresh agent that only polls."""
    assert ok(postroom("agents", "create", prefix, "--json"))["slug"] == prefix
    return prefix
