"""A dry run's answer is the real decision: for any agent, any sessions and any wish, on real servers."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import PostroomError
from contracts.events import Accepted
from contracts.records import Decision
from contracts.words import Channel, FallbackMode, State
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.installation import Installation, installation

AGES = st.sampled_from([None, 0.0, 60.0, 500.0])
"""Seconds since a heartbeat, well away from the threshold of 120; None: never attached, never heard of."""


@pytest.fixture
async def post(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Installation]:
    async with installation(nats_server.url, redis_server.url, prefix) as built:
        yield built


@given(
    capabilities=st.lists(st.sampled_from(Channel), min_size=1, unique=True),
    prefers_first=st.booleans(),
    mode=st.none() | st.sampled_from(Channel),
    fallback=st.sampled_from(FallbackMode),
    session_age_s=AGES,
    host_age_s=AGES,
)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_dry_run_says_what_sending_then_does(
    post: Installation,
    capabilities: list[Channel],
    prefers_first: bool,
    mode: Channel | None,
    fallback: FallbackMode,
    session_age_s: float | None,
    host_age_s: float | None,
) -> None:
    agent = await post.agent(*capabilities, preferred_contact=capabilities[0] if prefers_first else None)
    if session_age_s is not None:
        await post.attach(agent, age_s=session_age_s)
    if host_age_s is not None:
        await post.host_beats(agent, age_s=host_age_s)
    draft = await post.draft(agent, mode, fallback=fallback)
    foretold = await post.service.route(draft)
    try:
        sent = await post.service.accept(draft)
    except PostroomError as refused:
        assert foretold.ending is State.REJECTED
        assert refused.code == foretold.reason.value  # noqa: PT017 - what else may happen is below
        return
    first = sent.history.events[0].event
    assert isinstance(first, Accepted)
    assert essence(foretold) == essence(first.decision)


def essence(decision: Decision) -> object:
    """A decision without the ages its gates saw, which grow between two looks."""
    answers = [(each.gate, each.channel, each.verdict, each.reason) for each in decision.trace]
    return decision.steps, decision.ending, decision.reason, decision.waits, answers
