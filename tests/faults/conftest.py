"""The installation the tests of this folder do harm to: one per file, healed after each test."""

from collections.abc import AsyncIterator

import pytest

from tests.programs import Programs, for_one_test, programs


@pytest.fixture(scope="module")
async def installation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Programs]:
    async with programs(tmp_path_factory.mktemp("post"), gateways=2, routers=2) as running:
        yield running


@pytest.fixture
async def post(installation: Programs) -> AsyncIterator[Programs]:
    """Two gateways, two routers, broker and store, all running; kill and pause what you like."""
    async with for_one_test(installation) as lent:
        yield lent
