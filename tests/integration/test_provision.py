"""Streams are as they must be, or the program says which field is not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from contracts.subjects import Names
from infra.embedded import EmbeddedNats, NatsEndpoint, default_nats_config
from infra.jetstream_api import call
from infra.provision import (
    UnsafeBroker,
    check_server,
    check_streams,
    expected_streams,
    is_recent,
    provision,
    require_safe_server,
    require_same,
)
from tests.nats_streams import SMALL, connected, provisioned

DRIFTS: dict[str, Any] = {
    "max_bytes": 1024**2,
    "max_age": 10**12,
    "max_msgs": 10,
    "max_msgs_per_subject": 5,
    "max_msg_size": 1000,
    "discard": "old",
    "deny_purge": True,
    "allow_atomic": False,
    "allow_rollup_hdrs": True,
    "allow_direct": True,
    "duplicate_window": 10**9,
    "republish": {"src": "led.>", "dest": "elsewhere.>"},
    "persist_mode": "async",
    "allow_msg_ttl": True,
    "num_replicas": 3,
    "storage": "memory",
    "retention": "workqueue",
    "subjects": ["led.*"],
    "deny_delete": False,
    "sealed": True,
    "mirror": {"name": "OTHER"},
}


async def test_provisioning_twice_changes_nothing(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names):
        await provision(broker, names, SMALL)
        await check_streams(broker, names, SMALL)


async def test_an_absent_stream_is_refused_by_a_mere_check(nats_server: NatsEndpoint, prefix: str) -> None:
    async with connected(nats_server.url) as broker:
        with pytest.raises(UnsafeBroker) as caught:
            await check_streams(broker, Names(prefix=prefix), SMALL)
    assert caught.value.found == "absent"


@pytest.mark.parametrize("field", sorted(DRIFTS))
def test_drift_is_refused_naming_the_field(field: str) -> None:
    names = Names()
    ledger = expected_streams(names, SMALL)[names.ledger_stream]
    with pytest.raises(UnsafeBroker) as caught:
        require_same(names.ledger_stream, ledger, ledger | {field: DRIFTS[field]})
    assert (caught.value.where, caught.value.field) == ("LEDGER", field)
    assert caught.value.code == "unsafe_broker_config"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("discard", "old"),
        ("max_age", 10**12),
        ("max_msgs", 1000),
        ("deny_purge", True),
        ("allow_atomic", False),
        ("allow_msg_ttl", True),
        ("duplicate_window", 10**9),
        ("republish", None),
        ("max_bytes", 2 * 1024**2),
    ],
)
async def test_a_stream_changed_by_hand_is_refused(
    nats_server: NatsEndpoint, prefix: str, field: str, value: object
) -> None:
    names = Names(prefix=prefix)
    drifted = expected_streams(names, SMALL)[names.ledger_stream] | {field: value}
    async with connected(nats_server.url) as broker:
        await call(broker, f"STREAM.CREATE.{names.ledger_stream}", drifted)
        with pytest.raises(UnsafeBroker) as caught:
            await provision(broker, names, SMALL)
    assert caught.value.field == field


async def test_an_asynchronous_stream_is_refused(nats_server: NatsEndpoint, prefix: str) -> None:
    names = Names(prefix=prefix)
    drifted = expected_streams(names, SMALL)[names.ledger_stream] | {"persist_mode": "async", "allow_atomic": False}
    async with connected(nats_server.url) as broker:
        await call(broker, f"STREAM.CREATE.{names.ledger_stream}", drifted)
        with pytest.raises(UnsafeBroker):
            await check_streams(broker, names, SMALL)


async def test_our_own_server_is_safe(nats_server: NatsEndpoint) -> None:
    await check_server(nats_server.sys_url)


async def test_a_server_that_does_not_sync_each_write_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text(re.sub(r"(?m)^\s*sync_interval:.*$", "", default_nats_config().read_text()))
    server = EmbeddedNats(data_dir=tmp_path / "data", config=config)
    endpoint = await server.start()
    try:
        with pytest.raises(UnsafeBroker) as caught:
            await check_server(endpoint.sys_url)
    finally:
        await server.stop()
    assert caught.value.field == "jetstream.sync_interval"


@pytest.mark.parametrize(
    ("version", "answer"),
    [
        ("2.14.0", True),
        ("2.14.3", True),
        ("2.15.1", True),
        ("3.0.0", True),
        ("v2.15.1", True),
        ("2.15.0-dev", True),
        ("2.14.0+build.7", True),
        ("2.14.0-RC.1", False),
        ("2.13.9", False),
        ("2.9.10", False),
        ("1.99.99", False),
        ("", False),
        ("two", False),
        ("2.15", False),
    ],
)
def test_a_version_is_judged_by_its_numbers(version: str, answer: bool) -> None:
    assert is_recent(version) is answer


def test_an_old_server_is_refused_by_name() -> None:
    answer = json.loads('{"server": {"name": "n1", "ver": "2.13.1", "jetstream": true}, "data": {}}')
    with pytest.raises(UnsafeBroker) as caught:
        require_safe_server(answer)
    assert (caught.value.where, caught.value.field) == ("server n1", "version")


def test_a_server_without_streams_need_not_sync_them() -> None:
    require_safe_server({"server": {"name": "n1", "ver": "2.15.1"}, "data": {"disabled": True}})
