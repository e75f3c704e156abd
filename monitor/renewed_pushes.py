"""The broker's pushes over connections whose credentials are renewed, each before the one in use ends.

    key made ▶ credential asked for ▶ connected and subscribed ▶ the connection before it closed
        └ refused: asked again, slowly            └ two thirds of its life over, or lost for `LOST_S`: from the start

What is pushed while two connections are open is heard twice, which is harmless. When the gateway is away the connection
stays as long as its credential lives; when the credential ends, polls and beats over HTTPS cover what is missed.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from contracts.errors import NotFound, PostroomError, Rejected, Unavailable
from contracts.records import Echo, Envelope
from contracts.subjects import agent_of_push
from monitor.backoff import Backoff, Draw, jittered
from monitor.ports import BrokerLogin, Gateway, Link, PushFeed

REFUSED_AGAIN_S: Final = 60.0
LOST_S: Final = 10.0
"""A broker that restarts is back before that. A revoked credential never is."""
LOST_MAX_S: Final = 120.0
LOOK_S: Final = 0.5
AWAY: Final = Backoff(first_s=0.5, cap_s=30.0)
NOT_GIVEN_OUT: Final = "credentials_not_available"


@dataclass(slots=True, kw_only=True)
class _Hearing:
    """Who is told of what is heard."""

    subjects: Sequence[str]
    heard: Callable[[Envelope], None]
    subscribed: Callable[[], None]
    echoed: Callable[[Echo], None]


@dataclass(slots=True, kw_only=True)
class _Open:
    """One connection, from its opening until somebody closes it."""

    feed: PushFeed
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    stands: anyio.Event = field(default_factory=anyio.Event)


class RenewedPushes:
    """Implements `monitor.ports.PushFeed`. `nats_url` is where the broker is; None: the gateway has to say."""

    def __init__(
        self,
        *,
        monitor_id: str,
        nats_url: str | None,
        gateway: Gateway,
        new_link: Callable[[], Link],
        without_credentials: Callable[[str], PushFeed],
        refused_again_s: float = REFUSED_AGAIN_S,
        lost_s: float = LOST_S,
        draw: Draw = random.random,
    ) -> None:
        """`without_credentials` is the feed where the gateway gives out none."""
        self._monitor_id = monitor_id
        self._nats_url = nats_url
        self._gateway = gateway
        self._new_link = new_link
        self._without_credentials = without_credentials
        self._refused_again_s = refused_again_s
        self._lost_s = lost_s
        self._patience = Backoff(first_s=lost_s, cap_s=LOST_MAX_S)
        self._failures = 0
        self._draw = draw
        self._current: _Open | None = None
        self._log = structlog.get_logger().bind(monitor_id=monitor_id)

    @property
    def is_speaking(self) -> bool:
        return self._current is not None and self._current.feed.is_speaking

    async def say(self, subject: str, payload: bytes) -> bool:
        return self._current is not None and await self._current.feed.say(subject, payload)

    async def follow(
        self,
        subjects: Sequence[str],
        heard: Callable[[Envelope], None],
        subscribed: Callable[[], None],
        echoed: Callable[[Echo], None] = lambda _: None,
    ) -> None:
        hearing = _Hearing(subjects=subjects, heard=heard, subscribed=subscribed, echoed=echoed)
        async with anyio.create_task_group() as tasks:
            while True:
                link = self._new_link()
                try:
                    login = await self._login(link, subjects)
                except Rejected as refusal:
                    if refusal.code == NOT_GIVEN_OUT and self._nats_url is not None:
                        await self._follow_without(hearing)
                    self._log.error("broker_credentials_refused", code=refusal.code)
                    await anyio.sleep(jittered(self._refused_again_s))
                    continue
                url = self._nats_url or login.nats_url
                if url is None:
                    self._log.error("broker_unknown", reason="neither nats_url here nor POSTROOM_NATS_EDGE_URL there")
                    await anyio.sleep(jittered(self._refused_again_s))
                    continue
                await self._use(link.feed(url, login.jwt), login, hearing, tasks)

    # --- asking ----------------------------------------------------------------------------------------------------

    async def _login(self, link: Link, subjects: Sequence[str]) -> BrokerLogin:
        """Credentials for all agents, or for those of them there still are."""
        agent_ids = list(dict.fromkeys(map(agent_of_push, subjects)))
        try:
            return await self._ask(link, agent_ids)
        except NotFound as absent:
            if absent.code != "agent_not_found":
                raise
        present = [agent_id for agent_id in agent_ids if await self._exists(agent_id)]
        self._log.warning("agents_not_served", agents=sorted(set(agent_ids) - set(present)))
        return await self._ask(link, present or agent_ids)

    async def _ask(self, link: Link, agent_ids: Sequence[str]) -> BrokerLogin:
        failures = 0
        while True:
            try:
                return await self._gateway.broker_login(self._monitor_id, link.public_key, agent_ids)
            except Unavailable as away:
                failures += 1
                self._log.warning("broker_credentials_not_renewed", code=away.code, failures=failures)
                await anyio.sleep(max(AWAY.delay_s(failures, self._draw()), min(away.retry_after_s, AWAY.cap_s)))

    async def _exists(self, agent_id: str) -> bool:
        try:
            await self._gateway.agent(agent_id)
        except NotFound:
            return False
        except PostroomError as error:
            self._log.warning("agent_not_looked_up", agent_id=agent_id, code=error.code)
        return True

    # --- connections -----------------------------------------------------------------------------------------------

    async def _use(self, feed: PushFeed, login: BrokerLogin, hearing: _Hearing, tasks: TaskGroup) -> None:
        """Open this connection, close the one before once it stands, and return when it is time for the next."""
        before, opened = self._current, _Open(feed=feed)
        now = anyio.current_time()
        renew_at = now + max(LOOK_S, jittered(login.renew_after_s))
        opened.scope.deadline = now + max(login.lives_s, login.renew_after_s)
        tasks.start_soon(self._carry, opened, [each for each in hearing.subjects if each in login.subjects], hearing)
        with anyio.move_on_after(self._patience.delay_s(self._failures + 1, self._draw())):
            await opened.stands.wait()
        if not opened.stands.is_set():
            # Refused, or there is no way at the moment: with another credential, and each time a little later.
            self._failures += 1
            opened.scope.cancel()
            return
        self._failures = 0
        if before is not None:
            before.scope.cancel()
        await self._until_needed(opened, renew_at)

    async def _carry(self, opened: _Open, subjects: Sequence[str], hearing: _Hearing) -> None:
        def stands() -> None:
            opened.stands.set()
            self._current = opened
            hearing.subscribed()

        with opened.scope:
            await opened.feed.follow(subjects, hearing.heard, stands, hearing.echoed)

    async def _until_needed(self, opened: _Open, renew_at: float) -> None:
        lost_at: float | None = None
        while anyio.current_time() < renew_at and not opened.scope.cancel_called:
            await anyio.sleep(min(LOOK_S, max(0.0, renew_at - anyio.current_time())))
            if opened.feed.is_speaking:
                lost_at = None
            elif lost_at is None:
                lost_at = anyio.current_time()
            elif anyio.current_time() - lost_at > jittered(self._lost_s):
                self._log.warning("broker_connection_lost", after_s=round(self._lost_s))
                return

    async def _follow_without(self, hearing: _Hearing) -> None:
        assert self._nats_url is not None
        opened = _Open(feed=self._without_credentials(self._nats_url))
        self._current = opened
        with opened.scope:
            await opened.feed.follow(hearing.subjects, hearing.heard, hearing.subscribed, hearing.echoed)
