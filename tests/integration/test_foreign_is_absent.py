"""Somebody else's objects look like absent ones on every route that names one: body, headers, and the time it takes."""

import logging
import statistics
import string
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Final

import httpx
import pytest
import structlog

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Rig, running_rig
from tests.integration.test_http_routes import ROUTES
from tests.role_matrix import Route, Stage

Ask = Callable[[], Awaitable[object]]
NAMING: Final = sorted(route for route, answers in ROUTES.items() if answers.stranger == 404)
# Answered before anything is looked up: the caller has to confirm first.
ASKS_NOBODY: Final = {("POST", "/v1/agents/{ref}/webhook-secret/regenerate")}
# Said of a subscription that is not there, these are done already.
TAKES_ANYTHING: Final = {
    ("DELETE", "/v1/agents/{ref}/subscriptions/{subscription_id}"),
    ("PATCH", "/v1/agents/{ref}/subscriptions/{subscription_id}/ack"),
}
PAIRS: Final = 40
ROUNDS: Final = 8
BOUND: Final = 1.25


@pytest.fixture(autouse=True)
def without_debug_lines() -> Iterator[None]:
    """A line for every request would be most of what is measured."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


def by_kind() -> dict[str, list[Route]]:
    """The routes by what they are about: the first word of the path after its version."""
    kinds: defaultdict[str, list[Route]] = defaultdict(list)
    for method, path in NAMING:
        kinds[path.split("/")[2]].append((method, path))
    return kinds


def path_names(route: Route) -> list[str]:
    """What the path names, the outer before the inner."""
    return [name for _, name, _, _ in string.Formatter().parse(route[1]) if name]


def absent(names: dict[str, str]) -> dict[str, str]:
    """Names of the same shape that nothing has: their last characters moved on by one within ids' alphabet."""
    letters, digits = string.ascii_lowercase, string.digits
    turns = str.maketrans(letters + digits, "bcdefghjjkmmnpqrstvvwxyzaa" + digits[1:] + digits[0])
    return {kind: name[:-4] + name[-4:].translate(turns) for kind, name in names.items()}


async def ask(stage: Stage, route: Route, names: dict[str, str]) -> httpx.Response:
    return await stage.request(route, ROUTES[route], stage.rig.eve, names)


def told(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    headers = [header for header in answer.headers.multi_items() if header[0] != "x-request-id"]
    return answer.status_code, answer.content, headers


async def seconds_of(action: Ask) -> float:
    began = time.perf_counter()
    await action()
    return time.perf_counter() - began


async def ratio_of(one: Ask, other: Ask) -> float:
    """How long the one takes for each second of the other, by medians of turns: what disturbs one disturbs both.

    Goes on measuring while the ratio is out of bounds: a difference stays, a busy machine's mood does not.
    """
    ones: list[float] = []
    others: list[float] = []
    ratio = 0.0
    for _ in range(ROUNDS):
        for turn in range(PAIRS):
            for action, times in [(one, ones), (other, others)][:: 1 if turn % 2 else -1]:
                times.append(await seconds_of(action))
        ratio = statistics.median(ones) / statistics.median(others)
        if is_equal(ratio):
            break
    return ratio


def is_equal(ratio: float) -> bool:
    return 1 / BOUND <= ratio <= BOUND


def test_a_route_with_a_name_in_its_path_is_looked_at_here() -> None:
    named = {route for route in ROUTES if "{" in route[1]}

    assert named - set(NAMING) == ASKS_NOBODY


@pytest.mark.parametrize("kind", sorted(by_kind()))
async def test_it_answers_as_for_an_absent_one(rig: Rig, kind: str) -> None:
    stage = await Stage.set(rig)
    for route in by_kind()[kind]:
        names = await stage.names(route, ROUTES[route])
        foreign, missing = await ask(stage, route, names), await ask(stage, route, absent(names))

        assert missing.status_code == 404, f"{route}: {missing.text}"
        assert told(foreign) == told(missing), route
        assert foreign.headers["x-request-id"] != missing.headers["x-request-id"]


async def test_within_ones_own_project_or_agent_a_foreign_one_is_absent_too(rig: Rig) -> None:
    stage, own = await Stage.set(rig), await rig.eve.agent("helper")
    around = {"project": "eve", "ref": own["id"], "agent_id": own["id"]}
    for route in NAMING:
        outer = path_names(route)[:-1]
        if not outer:
            continue
        names = await stage.names(route, ROUTES[route])
        within = {name: around[name] for name in outer}
        foreign = await ask(stage, route, names | within)
        missing = await ask(stage, route, absent(names) | within)

        assert missing.status_code == (200 if route in TAKES_ANYTHING else 404), f"{route}: {missing.text}"
        assert told(foreign) == told(missing), route


@pytest.mark.parametrize("kind", sorted(by_kind()))
async def test_it_takes_as_long_as_for_an_absent_one(rig: Rig, kind: str) -> None:
    stage, ratios = await Stage.set(rig), {}
    for route in by_kind()[kind]:
        names = await stage.names(route, ROUTES[route])
        missing = absent(names)
        ratios[route] = await ratio_of(partial(ask, stage, route, names), partial(ask, stage, route, missing))

    assert {route: ratio for route, ratio in ratios.items() if not is_equal(ratio)} == {}


async def test_an_agent_heard_of_for_the_first_time_takes_as_long_as_an_absent_one(
    rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    made = [str((await rig.max.agent(f"helper-{number}"))["id"]) for number in range(PAIRS)]
    missing = [absent({"agent": agent_id})["agent"] for agent_id in made]
    foreign_s: list[float] = []
    missing_s: list[float] = []
    for _ in range(ROUNDS):
        # Another gateway remembers none of them: each of its answers is a question to the broker.
        async with running_rig(nats_server, redis_server, prefix) as other:
            for one, nobody in zip(made, missing, strict=True):
                foreign_s.append(await seconds_of(partial(other.eve.call, "GET", f"/v1/agents/{one}")))
                missing_s.append(await seconds_of(partial(other.eve.call, "GET", f"/v1/agents/{nobody}")))
        if is_equal(statistics.median(foreign_s) / statistics.median(missing_s)):
            return

    pytest.fail(
        f"{statistics.median(foreign_s)} s for a foreign one, {statistics.median(missing_s)} s for an absent one"
    )


async def test_a_difference_would_be_seen(rig: Rig) -> None:
    """The measure itself: a lookup more on one side is out of bounds, however often it is measured."""
    agent = await rig.max.agent("helper")

    async def once() -> None:
        await rig.eve.call("GET", f"/v1/agents/{agent['id']}")

    async def twice() -> None:
        await once()
        await once()

    assert await ratio_of(twice, once) > BOUND
