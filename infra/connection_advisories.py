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
from infra.nats_connection import Broker
from router.ports import ConnectionListener

log = structlog.get_logger(__name__)

ADVISORIES: Final = "$SYS.ACCOUNT.*.*"
"""One subscription for both: those of one connection stay in their order."""
OPENED: Final = "CONNECT"
CLOSED: Final = "DISCONNECT"
PING_CONNECTIONS: Final = "$SYS.REQ.SERVER.PING.CONNZ"
CONNECTIONS_OF: Final = "$SYS.REQ.SERVER.{server_id}.CONNZ"
PAGE: Final = 256
"""A row with its JWT is 1.3 KB."""
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
    answers = await _first_pages(broker)
    if not answers:
        raise Unavailable("broker_silent", "no server said which connections it has")
    return [row for answer in answers for row in await _rows(broker, answer["server"]["id"], answer["data"])]


async def _rows(broker: Broker, server_id: str, page: Page) -> list[Row]:
    """What a server has on this page and on those behind it."""
    rows: list[Row] = []
    while connections := page.get("connections"):
        rows += [(server_id, connection) for connection in connections]
        if page["offset"] + len(connections) >= page["total"]:
            break
        question = _question(page["offset"] + len(connections))
        page = json.loads((await broker.request(CONNECTIONS_OF.format(server_id=server_id), question)).data)["data"]
    return rows


async def _first_pages(broker: Broker) -> list[Mapping[str, Any]]:
    """The answers of all servers: collected until none has come for a short while."""
    send, receive = anyio.create_memory_object_stream[Msg](1_000)
    subscription = await broker.subscribe(broker.new_inbox(), send.send_nowait)
    answers: list[Mapping[str, Any]] = []
    wait_s = broker.patience.request_s
    try:
        await broker.publish(PING_CONNECTIONS, _question(0), reply=subscription.subject)
        while True:
            with anyio.move_on_after(wait_s):
                answers.append(json.loads((await receive.receive()).data))
                wait_s = QUIET_S
                continue
            return [answer for answer in answers if "data" in answer]
    finally:
        with anyio.CancelScope(shield=True):
            await broker.unsubscribe(subscription)
        send.close()
        receive.close()


def _question(offset: int) -> bytes:
    return json.dumps({"auth": True, "limit": PAGE, "offset": offset}).encode()
