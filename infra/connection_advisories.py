"""What the broker's system account tells of connections: each that opens or closes, and now and then all there are.

Advisories are core messages: some are missed while our connection is away or a server dies. So all servers are asked
what is open after each new connection of ours, and every `ASKED_EVERY_S` besides.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import anyio
import structlog
from nats.aio.msg import Msg

from contracts.errors import Unavailable
from infra.broker_url import BadBrokerUrl
from infra.nats_connection import Broker
from router.ports import ConnectionListener

log = structlog.get_logger(__name__)

ADVISORIES: Final = "$SYS.ACCOUNT.*.*"
"""One subscription for both: those of one connection stay in their order."""
OPENED: Final = "CONNECT"
CLOSED: Final = "DISCONNECT"
PING_CONNECTIONS: Final = "$SYS.REQ.SERVER.PING.CONNZ"
CONNECTIONS_OF: Final = "$SYS.REQ.SERVER.{server_id}.CONNZ"
PAGE: Final = 64
"""A row of a monitor with 200 agents is 32 KB, by its JWT: a page stays far below what the broker holds back for us
(`max_pending`), beyond which it would cut us off."""
QUIET_S: Final = 0.3
ASKED_EVERY_S: Final = 60.0
RETRY_S: Final = 2.0

Page = Mapping[str, Any]
Row = tuple[str, Mapping[str, Any]]


async def follow_connections(sys_url: str, listener: ConnectionListener, *, every_s: float = ASKED_EVERY_S) -> None:
    """Tell `listener` until cancelled, through every restart of the broker."""
    while True:
        try:
            async with Broker.open(sys_url, name="postroom-router-sys", on_lost=listener.lost) as broker:
                await _follow(broker, listener, every_s)
        except Unavailable as error:
            log.warning("connections_unknown", reason=error.message)
        except BadBrokerUrl as error:
            # It could be used at our start: a file that is being renewed may be half there.
            log.warning("connections_unknown", reason=str(error))
        listener.lost()
        await anyio.sleep(RETRY_S)


async def _follow(broker: Broker, listener: ConnectionListener, every_s: float) -> None:
    missed = _Bell()
    await broker.subscribe(ADVISORIES, lambda message: _tell(message, listener), on_gap=missed.ring)
    while True:
        listener.asked()
        try:
            listener.present(await _open_connections(broker))
        except Unavailable as error:
            log.warning("connections_not_told", reason=error.message)
            await anyio.sleep(RETRY_S)
            continue
        await missed.wait(every_s)


class _Bell:
    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, timeout_s: float) -> None:
        with anyio.move_on_after(timeout_s):
            await self._rung.wait()
        self._rung = anyio.Event()


def _tell(message: Msg, listener: ConnectionListener) -> None:
    kind = message.subject.rpartition(".")[2]
    if kind not in (OPENED, CLOSED):
        return
    advisory = json.loads(message.data)
    server_id, client = advisory["server"]["id"], advisory["client"]
    if kind == OPENED:
        listener.opened(server_id, client)
    else:
        listener.closed(server_id, client, advisory.get("reason", ""))


async def _open_connections(broker: Broker) -> list[Row]:
    """Every open connection of every server that answers. Raises `Unavailable` when none does."""
    servers = await _servers(broker)
    if not servers:
        raise Unavailable("broker_silent", "no server said which connections it has")
    return [row for server_id in servers for row in await _rows(broker, server_id)]


async def _rows(broker: Broker, server_id: str) -> list[Row]:
    """What one server has, page by page."""
    rows: list[Row] = []
    while True:
        page = await _page(broker, server_id, len(rows))
        connections = page.get("connections") or []
        rows += [(server_id, connection) for connection in connections]
        if not connections or len(rows) >= page["total"]:
            return rows


async def _page(broker: Broker, server_id: str, offset: int) -> Page:
    question = _question(offset, PAGE)
    answer = json.loads((await broker.request(CONNECTIONS_OF.format(server_id=server_id), question)).data)
    if "data" not in answer:
        raise Unavailable("broker_silent", "a server did not say which connections it has")
    page: Page = answer["data"]
    return page


async def _servers(broker: Broker) -> list[str]:
    """The ids of all servers: their answers are collected until none has come for a short while."""
    send, receive = anyio.create_memory_object_stream[Msg](1_000)
    subscription = await broker.subscribe(broker.new_inbox(), send.send_nowait)
    found: list[str] = []
    wait_s = broker.patience.request_s
    try:
        await broker.publish(PING_CONNECTIONS, _question(0, 1), reply=subscription.subject)
        while True:
            with anyio.move_on_after(wait_s):
                found.append(json.loads((await receive.receive()).data)["server"]["id"])
                wait_s = QUIET_S
                continue
            return found
    finally:
        with anyio.CancelScope(shield=True):
            await broker.unsubscribe(subscription)
        send.close()
        receive.close()


def _question(offset: int, limit: int) -> bytes:
    return json.dumps({"auth": True, "limit": limit, "offset": offset}).encode()
