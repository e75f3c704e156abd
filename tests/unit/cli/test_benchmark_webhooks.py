"""Webhooks in the benchmark: what does not arrive, is not recorded or does not hang as it should is a failure."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
import pytest
from aiohttp import ClientSession, web
from anyio.abc import TaskGroup

from cli.benchmark import jobs, webhooks
from cli.benchmark.bare_posts import run_bare_posts
from cli.benchmark.jobs import HUNG_IN_FLIGHT, JsonObject
from cli.benchmark.message import VIEW
from cli.benchmark.receiver import HOSTS, Receiver, many_hosts, receiving
from cli.benchmark.signed_posts import run_signed_posts

ACCEPTED_AT, ENDED_AT = "2000-01-01T00:00:00.000Z", "2000-01-01T00:00:02.000Z"
EXPECTED = {"status": 201, "members": ["id"], "parsed_share": 1}


class Product:
    """Accepts messages and posts each to the URL its request names, but for what it is told to leave out."""

    def __init__(self, tasks: TaskGroup, http: ClientSession) -> None:
        self.url = ""
        self.posts = True
        self.state = "delivered"
        self.keys: Counter[str] = Counter()
        self._tasks = tasks
        self._http = http

    async def accept(self, request: web.Request) -> web.Response:
        self.keys[request.headers["authorization"]] += 1
        message_id = f"msg_{self.keys.total()}"
        if self.posts:
            self._tasks.start_soon(self._post, (await request.json())["to"], message_id)
        return web.json_response({"id": message_id, "accepted_at": ACCEPTED_AT}, status=201)

    async def read(self, request: web.Request) -> web.Response:
        return web.json_response({"state": self.state, "ended_at": ENDED_AT})

    async def _post(self, url: str, message_id: str) -> None:
        async with self._http.post(url, data=b"{}", headers={"webhook-id": message_id}) as answer:
            await answer.read()


@asynccontextmanager
async def product() -> AsyncIterator[Product]:
    async with ClientSession() as http, anyio.create_task_group() as tasks:
        built = Product(tasks, http)
        app = web.Application()
        app.router.add_post("/v1/messages", built.accept)
        app.router.add_get("/v1/messages/{id}", built.read)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        built.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield built
        finally:
            await runner.cleanup()
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def hook(status: int = 200) -> AsyncIterator[tuple[str, list[tuple[Mapping[str, str], bytes]]]]:
    """A receiver that keeps what it was sent, headers and body: its URL, and what it has."""
    requests: list[tuple[Mapping[str, str], bytes]] = []

    async def keep(request: web.Request) -> web.Response:
        requests.append((request.headers, await request.read()))
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/hook", keep)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", requests
    finally:
        await runner.cleanup()


def request_to(receiver_url: str, built: Product, key: str = "k") -> JsonObject:
    where = {"url": built.url, "key": key, "method": "POST", "path": "/v1/messages"}
    return {**where, "expected": EXPECTED, "body": {"to": receiver_url}}


async def to_many(receiver: Receiver, built: Product, count: int) -> JsonObject:
    requests = [request_to(url, built, key) for url, key in zip(receiver.urls, "ab", strict=True)]
    return await jobs.webhooks(requests=requests, receiver=receiver, count=count)


async def beside_hung(receiver: Receiver, neighbour: Receiver, built: Product) -> JsonObject:
    return await jobs.webhook_hung(
        request=request_to(receiver.url, built),
        hung_request=request_to(neighbour.url, built),
        hung_count=HUNG_IN_FLIGHT,
        receiver=receiver,
        neighbour=neighbour,
        rate=200,
        count=10,
    )


async def test_webhooks_per_second_count_from_the_first_accept_to_the_last_record() -> None:
    async with receiving(["127.0.0.1", "127.0.0.1"]) as receiver, product() as built:
        result = await to_many(receiver, built, 20)
    assert (result["n"], result["failed"], result["elapsed_s"], result["per_s"]) == (20, 0, 2.0, 10.0)
    assert built.keys == {"Bearer a": 10, "Bearer b": 10}


async def test_a_webhook_that_never_arrives_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "ARRIVED_S", 0.05)
    async with receiving(["127.0.0.1", "127.0.0.1"]) as receiver, product() as built:
        built.posts = False
        result = await to_many(receiver, built, 3)
    assert (result["n"], result["failures"]) == (0, {"webhook missing": 3})


async def test_a_delivery_that_is_not_recorded_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "RECORDED_S", 0.3)
    async with receiving(["127.0.0.1", "127.0.0.1"]) as receiver, product() as built:
        built.state = "leased"
        result = await to_many(receiver, built, 3)
    assert result["failures"] == {"delivery not recorded": 3}


async def test_a_neighbour_holds_its_answers_meanwhile_and_gives_them_all_afterwards() -> None:
    held: list[int] = []
    async with receiving() as receiver, receiving() as neighbour, product() as built:
        async with anyio.create_task_group() as tasks:

            async def look() -> None:
                with anyio.move_on_after(5):
                    while not held:
                        await anyio.sleep(0.001)
                        if neighbour.held == HUNG_IN_FLIGHT:
                            held.append(neighbour.held)

            tasks.start_soon(look)
            result = await beside_hung(receiver, neighbour, built)
        assert neighbour.held == 0
    assert (result["n"], result["failed"], held) == (10, 0, [HUNG_IN_FLIGHT])


async def test_a_neighbour_that_does_not_hang_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ARRIVAL_S", 0.2)
    async with receiving() as receiver, receiving() as neighbour, product() as built:
        monkeypatch.setattr(neighbour, "hold", lambda: None)
        result = await beside_hung(receiver, neighbour, built)
    assert result["failures"] == {"neighbour did not hang": HUNG_IN_FLIGHT}


async def test_posts_without_the_product_are_counted_and_a_lost_receiver_is_a_failure() -> None:
    async with receiving(["127.0.0.1", "127.0.0.1"]) as receiver:
        good = await run_bare_posts(receiver.urls, in_flight=2, duration_s=0.05)
    assert good["n"] > 0
    assert good["failed"] == 0
    bad = await run_bare_posts(["http://127.0.0.1:1/"], in_flight=1, duration_s=0.05)
    assert bad["n"] == 0
    assert bad["failures"]["ClientConnectorError"] > 0


async def test_posts_of_the_sender_alone_are_signed_each_with_an_id_of_its_own() -> None:
    async with hook() as (url, requests):
        result = await run_signed_posts([url], in_flight=2, duration_s=0.05)
    assert (result["n"], result["failed"]) == (len(requests), 0)
    assert len({headers["webhook-id"] for headers, _ in requests}) == len(requests) > 1
    assert {body for _, body in requests} == {VIEW}
    assert all(headers["webhook-signature"].startswith("v1,") for headers, _ in requests)
    assert all(headers["webhook-timestamp"].isdigit() for headers, _ in requests)


@pytest.mark.parametrize(
    ("url", "fault"),
    [("http://169.254.169.254/", "blocked_address"), ("http://127.0.0.1:8/", "connect_failed")],
    ids=["out of bounds", "nobody listens"],
)
async def test_a_post_the_sender_does_not_get_through_is_a_failure(url: str, fault: str) -> None:
    result = await run_signed_posts([url], in_flight=1, duration_s=0.05)
    assert result["n"] == 0
    assert result["failures"].keys() == {fault}


async def test_a_post_of_the_sender_that_is_answered_otherwise_than_200_is_a_failure() -> None:
    async with hook(status=500) as (url, requests):
        result = await run_signed_posts([url], in_flight=1, duration_s=0.05)
    assert (result["n"], result["failures"]) == (0, {"status 500": len(requests)})


async def test_each_of_many_hosts_has_an_address_of_its_own() -> None:
    async with receiving(many_hosts()) as receiver:
        assert len(set(receiver.urls)) == len(receiver.urls) == HOSTS
