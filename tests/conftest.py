"""Fixtures for every layer: the two real servers, shared for a session or private to one test, and fresh prefixes."""

import secrets
from collections.abc import AsyncIterator
from typing import Final

import pytest

from infra.embedded import EmbeddedNats, EmbeddedRedis, NatsEndpoint, RedisEndpoint
from tests.log_secrets import pytest_runtest_makereport as pytest_runtest_makereport  # a hook: no test logs a secret

RESERVED_BYTES: Final = 1024**4
"""What the streams of all tests together may reserve; what they take of the disk is far less."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def prefix() -> str:
    """A short lower-case name nothing else in this session bears."""
    return f"t{secrets.token_hex(5)}"


@pytest.fixture(scope="session")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsEndpoint]:
    """The broker all tests share: never stop it, and keep to your own `prefix`."""
    server = EmbeddedNats(data_dir=tmp_path_factory.mktemp("nats"), max_file_store_bytes=RESERVED_BYTES)
    yield await server.start()
    await server.stop()


@pytest.fixture(scope="session")
async def redis_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisEndpoint]:
    """The Redis all tests share: never stop it, and keep to your own `prefix`."""
    server = EmbeddedRedis(data_dir=tmp_path_factory.mktemp("redis"))
    yield await server.start()
    await server.stop()


@pytest.fixture
async def own_nats(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedNats]:
    """A started broker of this test's own, to be killed or paused at will; `await own_nats.start()` brings it back."""
    server = EmbeddedNats(data_dir=tmp_path_factory.mktemp("own-nats"))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def own_redis(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedRedis]:
    """A started Redis of this test's own, to be killed or paused at will; `await own_redis.start()` brings it back."""
    server = EmbeddedRedis(data_dir=tmp_path_factory.mktemp("own-redis"))
    await server.start()
    yield server
    await server.stop()
