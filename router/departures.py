"""Monitors whose last connection to the broker closed: their sessions are overdue at once and not a threshold later.

    closed, and none left ──▶ suspected ──`GRACE_S` later still none──▶ its sessions ended, and looked at
                                 └──a new connection──▶ nothing
    ended ──a new connection──▶ back: it beats, and its sessions are looked at once more

A beat brings its session back: being wrong costs a monitor's pause between two beats. What the broker could not tell,
because it or our connection to it was away, makes nobody suspected; there the usual thresholds hold.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

import anyio
import structlog
from prometheus_client import CollectorRegistry, Counter

from contracts.errors import Unavailable
from router.monitor_links import Facts, Link, Links, link_of
from router.ports import SessionNotes

log = structlog.get_logger(__name__)

GRACE_S: Final = 0.3
"""A renewed connection is there before the old one goes, a broken one is back within a few milliseconds."""
BACK_AFTER_S: Final = 1.0
"""A monitor beats as soon as it is connected, and beats are noted several times a second."""
RETRY_S: Final = 1.0
REMEMBERED: Final = 10_000

T = TypeVar("T")
LookAt = Callable[[Sequence[str]], Awaitable[None]]


class Departures:
    """Implements `router.ports.ConnectionListener`.

    `look_at` is told the ids of the sessions of a monitor that went or came back. `flush` notes what the monitor said
    before it went, which must not count as said afterwards.
    """

    def __init__(
        self,
        *,
        account: str,
        notes: SessionNotes,
        flush: Callable[[], Awaitable[None]],
        look_at: LookAt,
        registry: CollectorRegistry,
        grace_s: float = GRACE_S,
        back_after_s: float = BACK_AFTER_S,
    ) -> None:
        self._account = account
        self._notes = notes
        self._flush = flush
        self._look_at = look_at
        self._links = Links()
        self._suspects = _Later[Link](grace_s)
        self._back = _Later[Sequence[str]](back_after_s)
        self._gone: dict[str, Sequence[str]] = {}
        self._ended = Counter("postroom_monitors_gone", "Monitors whose last connection closed.", registry=registry)

    def opened(self, server_id: str, client: Facts) -> None:
        link = link_of(server_id, client, self._account)
        if link is None:
            return
        self._links.opened(link)
        if link.monitor_id in self._gone:
            self._back.put(self._gone.pop(link.monitor_id))

    def closed(self, server_id: str, client: Facts, reason: str) -> None:
        link = link_of(server_id, client, self._account)
        if link is not None and self._links.closed(link, reason):
            self._suspects.put(link)

    def lost(self) -> None:
        self._links.lost()
        self._suspects.clear()

    def asked(self) -> None:
        self._links.asked()

    def present(self, clients: Iterable[tuple[str, Facts]]) -> None:
        found = (link_of(server_id, client, self._account) for server_id, client in clients)
        self._links.replace(link for link in found if link is not None)

    async def run(self) -> None:
        """End what is gone until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._welcome)
            while True:
                link = await self._suspects.take()
                if self._links.is_gone(link):
                    await self._end(link)

    async def _welcome(self) -> None:
        while True:
            await self._look_at(await self._back.take())

    async def _end(self, link: Link) -> None:
        try:
            await self._flush()
            session_ids = await self._notes.end(link.monitor_id)
        except Unavailable as error:
            log.warning("departure_not_noted", monitor_id=link.monitor_id, reason=error.message)
            self._suspects.put(link, RETRY_S)
            return
        self._ended.inc()
        self._gone[link.monitor_id] = session_ids
        while len(self._gone) > REMEMBERED:
            del self._gone[next(iter(self._gone))]
        log.info("monitor_gone", monitor_id=link.monitor_id, sessions=len(session_ids))
        await self._look_at(session_ids)


class _Later(Generic[T]):
    """A queue whose items are taken a while after they were put in, in their order."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._items: deque[tuple[float, T]] = deque()
        self._arrived = anyio.Event()

    def put(self, item: T, more_s: float = 0.0) -> None:
        self._items.append((anyio.current_time() + self._wait_s + more_s, item))
        self._arrived.set()

    def clear(self) -> None:
        self._items.clear()

    async def take(self) -> T:
        while not self._items:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        due_at, item = self._items.popleft()
        await anyio.sleep_until(due_at)
        return item
