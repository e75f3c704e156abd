"""Inbox conservation: on real servers, whatever happens, each accepted message is in one state and in its lists."""

import secrets
from contextlib import ExitStack
from functools import partial
from typing import ClassVar, Final

import anyio.to_thread
from anyio.from_thread import BlockingPortal
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test

from contracts.words import Channel
from infra.embedded import EmbeddedRedis, NatsEndpoint
from tests.installation import installation
from tests.mailbox_books import Books

# No sum of pauses comes near a time to live or a sending time: what is due is due by a margin, also on a slow machine.
PAUSES_S: Final = (30, 150, 5_000)
TTLS_S: Final = (110, 4_000, 400_000)
SEND_S: Final = (None, None, None, 75)

agents = st.integers(0, 1)
senders = st.sampled_from([None, 0, 1])
modes = st.sampled_from([Channel.INBOX, Channel.INBOX, Channel.INBOX, Channel.BG, None])


class Mailbox(RuleBasedStateMachine):
    """Two agents of one owner, a router, and whoever uses or disturbs them. The servers are real."""

    portal: ClassVar[BlockingPortal]
    nats_url: ClassVar[str]
    redis_url: ClassVar[str]
    messages: Bundle[str] = Bundle("messages")

    def __init__(self) -> None:
        super().__init__()
        self.house, self.router = ExitStack(), ExitStack()
        prefix = f"t{secrets.token_hex(5)}"
        self.post = self.house.enter_context(
            self.portal.wrap_async_context_manager(installation(self.nats_url, self.redis_url, prefix))
        )
        self.books = Books(self.post, self.redis_url)
        self.portal.call(self.books.open)
        self.start_router()

    def start_router(self) -> None:
        self.router.enter_context(self.portal.wrap_async_context_manager(self.post.new_worker()))

    @rule(
        target=messages,
        to=agents,
        sender=senders,
        mode=modes,
        ttl_s=st.sampled_from(TTLS_S),
        send_s=st.sampled_from(SEND_S),
    )
    def send(self, to: int, sender: int | None, mode: Channel | None, ttl_s: int, send_s: int | None) -> str:
        return self.portal.call(self.books.send, to, sender, mode, ttl_s, send_s)

    @rule(target=messages, key=st.sampled_from(["k1", "k2"]))
    def send_under_a_key(self, key: str) -> str:
        return self.portal.call(self.books.send_under, key)

    @rule(agent=agents, limit=st.sampled_from([1, 2, 50]))
    def poll(self, agent: int, limit: int) -> None:
        self.portal.call(self.books.poll, agent, limit)

    @rule(name=messages)
    def read(self, name: str) -> None:
        self.portal.call(self.books.read, name)

    @rule(name=messages)
    def acknowledge(self, name: str) -> None:
        self.portal.call(self.books.acknowledge, name)

    @rule(name=messages)
    def cancel(self, name: str) -> None:
        self.portal.call(self.books.cancel, name)

    @rule(name=messages)
    def replay(self, name: str) -> None:
        self.portal.call(self.books.replay, name)

    @rule(seconds=st.sampled_from(PAUSES_S))
    def let_time_pass(self, seconds: int) -> None:
        self.post.clock.move(seconds=seconds)

    @rule()
    def empty_the_store(self) -> None:
        self.portal.call(self.books.empty_the_store)

    @rule()
    def replace_the_router(self) -> None:
        self.router.close()
        self.start_router()

    @rule()
    def balance(self) -> None:
        self.portal.call(self.books.balance)

    def teardown(self) -> None:
        with self.house, self.router:
            self.portal.call(self.books.balance)


async def test_inbox_conservation(nats_server: NatsEndpoint, own_redis: EmbeddedRedis) -> None:
    bounds = settings(
        max_examples=12,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        # Shrinking a failure on real servers takes minutes; the sequence that failed is short as it is.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
    async with BlockingPortal() as portal:
        Mailbox.portal, Mailbox.nats_url, Mailbox.redis_url = portal, nats_server.url, own_redis.endpoint.url
        await anyio.to_thread.run_sync(partial(run_state_machine_as_test, Mailbox, settings=bounds))
