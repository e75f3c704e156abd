"""TLS and mTLS to the broker: encrypted to whom we believe, by whom it asks for, and otherwise not at all."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from contracts.errors import Unavailable
from infra.binaries import nats_server_binary
from infra.clock import SystemClock
from infra.embedded import NatsEndpoint, default_nats_config, nats_environment
from infra.nats_connection import Broker, Patience
from infra.nats_identity import CORE, NatsIdentity, installation_identity
from tests.certificates import Authority
from tests.nats_streams import until

HASTY = Patience(first_connect_s=0.5)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours", "ours")


@pytest.fixture
def identity(tmp_path: Path) -> NatsIdentity:
    return installation_identity(tmp_path / "identity", SystemClock().now())


@asynccontextmanager
async def tls_server(folder: Path, authority: Authority, identity: NatsIdentity, *, verify: bool) -> AsyncIterator[int]:
    """A broker with our nats.conf and TLS; yields its port."""
    pair = authority.issue("server")
    tls = {"cert_file": str(pair.cert), "key_file": str(pair.key), "ca_file": str(authority.ca), "verify": verify}
    config = folder / "nats.conf"
    config.write_text(f"{default_nats_config().read_text()}\ntls {json.dumps(tls)}\n")
    environment = nats_environment(identity=identity, store_dir=folder / "store", max_file_store_bytes=2**20)
    argv = [str(nats_server_binary()), "-c", str(config), "-p", "-1", "-m", "-1", "--ports_file_dir", str(folder)]
    async with await anyio.open_process(argv, env=environment, stderr=None) as server:
        try:
            ports = folder / f"nats-server_{server.pid}.ports"
            await until(lambda: ports.exists() and ports.read_text().endswith("}"))
            yield int(json.loads(ports.read_text())["nats"][0].rpartition(":")[2])
        finally:
            server.terminate()


def url(port: int, identity: NatsIdentity, **tls: Path) -> str:
    options = "".join(f"&tls_{name}={path}" for name, path in tls.items())
    return f"tls://127.0.0.1:{port}?creds={identity.creds_path(CORE)}{options}"


async def refusal(address: str) -> str:
    with pytest.raises(Unavailable) as caught:
        async with Broker.open(address, name="test", patience=HASTY):
            pytest.fail("there must be no connection")
    return str(caught.value)


async def test_tls_is_spoken_with_a_server_whose_authority_we_believe(
    tmp_path: Path, authority: Authority, identity: NatsIdentity
) -> None:
    other = Authority(tmp_path / "theirs", "theirs")
    async with tls_server(tmp_path, authority, identity, verify=False) as port:
        async with Broker.open(url(port, identity, ca=authority.ca), name="test") as broker:
            await broker.echo()
        assert "CERTIFICATE_VERIFY_FAILED" in await refusal(url(port, identity, ca=other.ca))
        assert "CERTIFICATE_VERIFY_FAILED" in await refusal(url(port, identity))


async def test_a_server_that_asks_for_a_certificate_takes_ours_and_nobody_else_s(
    tmp_path: Path, authority: Authority, identity: NatsIdentity
) -> None:
    mine, theirs = authority.issue("client"), Authority(tmp_path / "theirs", "theirs").issue("client")
    async with tls_server(tmp_path, authority, identity, verify=True) as port:
        address = url(port, identity, ca=authority.ca, cert=mine.cert, key=mine.key)
        async with Broker.open(address, name="test") as broker:
            await broker.echo()
        await refusal(url(port, identity, ca=authority.ca))
        await refusal(url(port, identity, ca=authority.ca, cert=theirs.cert, key=theirs.key))


async def test_nothing_is_sent_to_a_server_without_tls(nats_server: NatsEndpoint, authority: Authority) -> None:
    """Our own broker takes these credentials: what refuses is the client."""
    assert "does not speak TLS" in await refusal(url(nats_server.port, nats_server.identity, ca=authority.ca))


async def test_a_certificate_alone_makes_nobody_a_user(
    tmp_path: Path, authority: Authority, identity: NatsIdentity
) -> None:
    mine = authority.issue("client")
    async with tls_server(tmp_path, authority, identity, verify=True) as port:
        address = f"tls://127.0.0.1:{port}?tls_ca={authority.ca}&tls_cert={mine.cert}&tls_key={mine.key}"
        assert "authorization violation" in (await refusal(address)).lower()
