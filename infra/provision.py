"""The one configuration our streams may have, and the refusal to run on a broker that says otherwise.

    LEDGER        led.>          limits, discard new, no age or count limit, no deletion, atomic batches, republished
    EVENTS        ev.>           the same, neither republished nor ever rewritten
    KV_DIRECTORY  $KV.….>        a key-value bucket with history 1, atomic batches

A program calls `provision` or `check_streams`, and `check_server`, at every start: several of the measured losses were
a configuration that had drifted.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio
import structlog
from nats.aio.msg import Msg

from contracts.errors import PostroomError, Unavailable
from contracts.subjects import Names
from infra.jetstream_api import STREAM_NOT_FOUND, ApiRefused, call
from infra.nats_connection import Broker, Patience

log = structlog.get_logger(__name__)

OLDEST_SERVER: Final = (2, 14, 0)
NAME_IN_USE: Final = 10058
NANOSECONDS: Final = 1_000_000_000
UNCHECKED: Final = frozenset({"metadata", "description", "placement"})
"""What says nothing about what is kept: the server's own notes, a text, a choice of machines."""
QUIET_S: Final = 0.3
PING_JETSTREAM: Final = "$SYS.REQ.SERVER.PING.JSZ"


class UnsafeBroker(PostroomError):
    """The broker, or one of our streams on it, is not configured as our promises need it."""

    def __init__(self, where: str, field: str, expected: object, found: object) -> None:
        super().__init__(
            "unsafe_broker_config",
            f"{where}: {field} must be {expected!r}, and is {found!r}",
            where=where,
            field=field,
        )
        self.where = where
        self.field = field
        self.expected = expected
        self.found = found


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """What an installation may choose. The store must have room for all `max_bytes`: the broker reserves them."""

    ledger_max_bytes: int = 8 * 1024**3
    directory_max_bytes: int = 1024**3
    events_max_bytes: int = 2 * 1024**3
    max_record_bytes: int = 512 * 1024
    replicas: int = 1
    duplicate_window_s: int = 120


async def provision(broker: Broker, names: Names, settings: StreamSettings | None = None) -> None:
    """Create the streams that are missing, then check all of them; raises `UnsafeBroker` on any difference."""
    for config in expected_streams(names, settings or StreamSettings()).values():
        if await _found(broker, config["name"]) is None:
            await _create(broker, config)
    await check_streams(broker, names, settings)


async def check_streams(broker: Broker, names: Names, settings: StreamSettings | None = None) -> None:
    """Compare each stream with what it must be, field by field; raises `UnsafeBroker` naming the first difference."""
    for name, expected in expected_streams(names, settings or StreamSettings()).items():
        found = await _found(broker, name)
        if found is None:
            raise UnsafeBroker(name, "stream", "present", "absent")
        require_same(name, expected, found)


async def check_server(sys_url: str, *, timeout_s: float = 3.0) -> None:
    """Ask every server of the cluster, as the system user, whether it is recent and syncs each write.

    Raises `UnsafeBroker` naming the server and the field, `Unavailable` when no server answers.
    """
    patience = Patience(first_connect_s=timeout_s)
    async with Broker.open(sys_url, name="postroom-check", patience=patience) as broker:
        answers = await _answers(broker, timeout_s)
    if not answers:
        raise Unavailable("broker_silent", "no server answered the system user")
    for answer in answers:
        require_safe_server(answer)


def expected_streams(names: Names, settings: StreamSettings) -> dict[str, dict[str, Any]]:
    """Stream name to the configuration it must have, in the broker's own words."""
    ledger = _common(settings) | {
        "name": names.ledger_stream,
        "subjects": [names.ledger_filter],
        "max_bytes": settings.ledger_max_bytes,
        "deny_delete": True,
        "republish": {"src": names.ledger_filter, "dest": names.moved_filter, "headers_only": True},
    }
    events = _common(settings) | {
        "name": names.events_stream,
        "subjects": [names.events_filter],
        "max_bytes": settings.events_max_bytes,
        "deny_delete": True,
    }
    directory = _common(settings) | {
        "name": names.directory_stream,
        "subjects": [names.directory_key(">")],
        "max_bytes": settings.directory_max_bytes,
        "max_msgs_per_subject": 1,
        "deny_delete": True,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }
    return {config["name"]: config for config in (ledger, directory, events)}


def require_same(name: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise `UnsafeBroker` for the first field that differs; what is absent, empty or false counts as the same."""
    for field in sorted((expected.keys() | found.keys()) - UNCHECKED):
        wanted, present = expected.get(field), found.get(field)
        if (wanted or None) != (present or None):
            raise UnsafeBroker(name, field, wanted, present)


def require_safe_server(answer: Mapping[str, Any]) -> None:
    """Judge one server's answer: its version, and whether an acknowledged write is on disk."""
    server, data = answer.get("server", {}), answer.get("data") or {}
    where = f"server {server.get('name', '?')}"
    if not is_recent(str(server.get("ver", ""))):
        raise UnsafeBroker(where, "version", f"at least {'.'.join(map(str, OLDEST_SERVER))}", server.get("ver"))
    if server.get("jetstream") and not data.get("disabled"):
        config = data.get("config") or {}
        # The interval is shown with its default even when each write is synced: only this field tells.
        if config.get("sync_always") is not True:
            raise UnsafeBroker(where, "jetstream.sync_interval", "always", config.get("sync_interval"))


def is_recent(version: str) -> bool:
    """Say whether a server's version, such as `2.15.1` or `2.14.0-RC.2`, is new enough. A preview of it is not."""
    match = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", version)
    if match is None:
        return False
    numbers = (int(match[1]), int(match[2]), int(match[3]))
    return numbers > OLDEST_SERVER or (numbers == OLDEST_SERVER and match[4] is None)


def _common(settings: StreamSettings) -> dict[str, Any]:
    return {
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs": -1,
        "max_age": 0,
        "max_consumers": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": settings.max_record_bytes,
        "num_replicas": settings.replicas,
        "duplicate_window": settings.duplicate_window_s * NANOSECONDS,
        "compression": "none",
        "deny_purge": False,
        "allow_rollup_hdrs": False,
        "allow_direct": False,
        "allow_atomic": True,
    }


async def _found(broker: Broker, name: str) -> dict[str, Any] | None:
    try:
        config: dict[str, Any] = (await call(broker, f"STREAM.INFO.{name}"))["config"]
    except ApiRefused as refusal:
        if refusal.err_code == STREAM_NOT_FOUND:
            return None
        raise
    return config


async def _create(broker: Broker, config: Mapping[str, Any]) -> None:
    try:
        await call(broker, f"STREAM.CREATE.{config['name']}", config, timeout_s=10.0)
    except ApiRefused as refusal:
        # Another program was faster; whether it chose the same is checked next.
        if refusal.err_code != NAME_IN_USE:
            raise
    log.info("stream_created", stream=config["name"])


async def _answers(broker: Broker, timeout_s: float) -> list[dict[str, Any]]:
    """All servers' answers: collected until none has come for a short while."""
    send, receive = anyio.create_memory_object_stream[Msg](1000)
    subscription = await broker.subscribe(broker.new_inbox(), send.send_nowait)
    answers: list[dict[str, Any]] = []
    try:
        await broker.publish(PING_JETSTREAM, b'{"config": true}', reply=subscription.subject)
        wait_s = timeout_s
        while True:
            with anyio.move_on_after(wait_s):
                answers.append(json.loads((await receive.receive()).data))
                wait_s = QUIET_S
                continue
            return answers
    finally:
        await broker.unsubscribe(subscription)
        send.close()
        receive.close()
