"""The measurements a workload process knows, by name. Arguments and results are JSON."""

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import anyio
from nats.aio.msg import Msg

from cli.benchmark import raw_nats
from cli.benchmark.arrivals import Arrivals
from cli.benchmark.bare_posts import run_bare_posts
from cli.benchmark.bursts import run_bursts
from cli.benchmark.closed_loop import run_closed
from cli.benchmark.exchanges import (
    Expected,
    ListedRequests,
    RequestsInTurn,
    SameRequest,
    address_of,
    one_request,
    same_request,
)
from cli.benchmark.fanout import run_fanout
from cli.benchmark.lag import run_lag
from cli.benchmark.open_loop import run_open
from cli.benchmark.receiver import Receiver
from cli.benchmark.signed_posts import run_signed_posts
from cli.benchmark.webhooks import run_webhooks

JsonObject = dict[str, Any]
Job = Callable[..., Awaitable[JsonObject]]
ARRIVAL_S: Final = 10.0
HUNG_AT_MOST_S: Final = 10.0
"""After 15 s a webhook has failed, and a receiver that fails is left alone."""
HUNG_IN_FLIGHT: Final = 4
"""So many deliveries to one receiver are under way at most."""
LOOK_S: Final = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as JSON describes it."""

    url: str
    key: str
    method: str
    path: str
    expected: Mapping[str, Any]
    body: Any = None
    unique_header: str | None = None
    run: str = ""

    @property
    def address(self) -> tuple[str, int]:
        return address_of(self.url)

    def exchange(self) -> SameRequest:
        return same_request(
            self.url,
            self.method,
            self.path,
            key=self.key,
            expected=Expected(**self.expected),
            body=self.body,
            unique_header=self.unique_header,
            run=self.run,
        )


async def closed(*, request: JsonObject, in_flight: int, duration_s: float, count: int | None = None) -> JsonObject:
    asked = Request(**request)
    return await run_closed(asked.address, asked.exchange(), in_flight=in_flight, duration_s=duration_s, count=count)


async def in_turn(*, request: JsonObject, paths: Sequence[str], in_flight: int, duration_s: float) -> JsonObject:
    """Closed-loop load over several paths, each in its turn."""
    asked = Request(**request)
    requests = [one_request(asked.url, asked.method, path, key=asked.key, body=asked.body) for path in paths]
    exchange = RequestsInTurn(requests, Expected(**asked.expected))
    return await run_closed(asked.address, exchange, in_flight=in_flight, duration_s=duration_s)


async def bursts(*, request: JsonObject, size: int, one_key: bool, duration_s: float) -> JsonObject:
    asked = Request(**request)
    return await run_bursts(asked.address, asked.exchange(), size=size, one_key=one_key, duration_s=duration_s)


async def fanout(
    *, request: JsonObject, stream_path: str, readers: int, types: Sequence[str], rate: float, count: int
) -> JsonObject:
    asked = Request(**request)
    stream = one_request(asked.url, "GET", stream_path, key=asked.key, body=None)
    return await run_fanout(
        asked.address, asked.exchange(), stream, readers=readers, types=types, rate=rate, count=count
    )


async def offered(*, request: JsonObject, rate: float, count: int) -> JsonObject:
    asked = Request(**request)
    return await run_open(asked.address, asked.exchange(), rate=rate, count=count)


async def push(*, request: JsonObject, nats_url: str, subject: str, rate: float, count: int) -> JsonObject:
    """POST until a subscriber has the envelope."""
    arrivals = Arrivals(count)

    async def heard(message: Msg) -> None:
        arrivals.arrived(message.subject.rpartition(".")[2], time.perf_counter())

    async with raw_nats.connected(nats_url) as subscriber:
        await subscriber.subscribe(subject, cb=heard)
        await subscriber.flush()
        return await _until_arrived(arrivals, Request(**request), "execution_id", rate, count, "push missing")


async def webhook(*, request: JsonObject, receiver: Receiver, rate: float, count: int) -> JsonObject:
    """POST until the receiver has the whole request."""
    arrivals = Arrivals(count)
    receiver.on_arrival = arrivals.arrived
    try:
        return await _until_arrived(arrivals, Request(**request), "id", rate, count, "webhook missing")
    finally:
        receiver.on_arrival = None


async def webhook_hung(
    *,
    request: JsonObject,
    hung_request: JsonObject,
    hung_count: int,
    receiver: Receiver,
    neighbour: Receiver,
    rate: float,
    count: int,
) -> JsonObject:
    """The same while another receiver answers nothing, with as many deliveries as it may have and more that wait."""
    hung, heard = Request(**hung_request), set[str]()
    neighbour.on_arrival = lambda message_id, _: heard.add(message_id)
    neighbour.hold()
    try:
        posts = await run_closed(
            hung.address, hung.exchange(), in_flight=HUNG_IN_FLIGHT, duration_s=ARRIVAL_S, count=hung_count
        )
        await _until(lambda: neighbour.held >= HUNG_IN_FLIGHT)
        at_most = min(count, round(rate * HUNG_AT_MOST_S))
        result = await webhook(request=request, receiver=receiver, rate=rate, count=at_most)
        n_free = HUNG_IN_FLIGHT - neighbour.held
    finally:
        neighbour.release()
    # Nothing of it is left when the next measurement begins.
    await _until(lambda: len(heard) == hung_count)
    neighbour.on_arrival = None
    missing = {"neighbour did not hang": n_free, "held webhook missing": hung_count - len(heard)}
    return _with_failures(result, {**posts["failures"], **{fault: n for fault, n in missing.items() if n > 0}})


async def webhooks(*, requests: Sequence[JsonObject], receiver: Receiver, count: int) -> JsonObject:
    """`count` messages at once, to many receivers in turn."""
    posts = [Request(**each) for each in requests]
    rendered = [one_request(each.url, each.method, each.path, key=each.key, body=each.body) for each in posts]

    def reading(number: int, message_id: str) -> bytes:
        post = posts[number % len(posts)]
        return one_request(post.url, "GET", f"/v1/messages/{message_id}", key=post.key, body=None)

    exchange = RequestsInTurn(rendered, Expected(**posts[0].expected))
    return await run_webhooks(posts[0].address, exchange, reading, receiver=receiver, count=count)


async def webhooks_bare(*, receiver: Receiver, in_flight: int, duration_s: float) -> JsonObject:
    return await run_bare_posts(receiver.urls, in_flight=in_flight, duration_s=duration_s)


async def webhooks_sent(*, receiver: Receiver, in_flight: int, duration_s: float) -> JsonObject:
    return await run_signed_posts(receiver.urls, in_flight=in_flight, duration_s=duration_s)


async def claims(
    *, request: JsonObject, nats_url: str, subject: str, token: str, rate: float, count: int
) -> JsonObject:
    """Offer `count` messages live, collect their nonces from the pushes, then claim them at `rate` a second."""
    arrivals, nonces, asked = Arrivals(count), dict[str, str](), Request(**request)

    async def heard(message: Msg) -> None:
        envelope = json.loads(message.data)
        nonces[envelope["execution_id"]] = envelope["nonce"]
        arrivals.arrived(envelope["execution_id"], time.perf_counter())

    async with raw_nats.connected(nats_url) as subscriber:
        await subscriber.subscribe(subject, cb=heard)
        await subscriber.flush()
        offer = await _until_arrived(arrivals, asked, "execution_id", rate, count, "push missing")
    claim = ListedRequests(
        [
            one_request(
                asked.url,
                "POST",
                f"/v1/executions/{execution_id}/live-claim",
                key=asked.key,
                body={"session_token": token, "nonce": nonce},
            )
            for execution_id, nonce in nonces.items()
        ],
        Expected(status=200, values={"claimed": True, "level": "token+nonce"}),
    )
    result = await run_open(asked.address, claim, rate=rate, count=len(nonces))
    return _with_failures(result, offer["failures"])


async def lag(*, request: JsonObject, list_path: str, rate: float, count: int) -> JsonObject:
    asked = Request(**request)
    list_request = one_request(asked.url, "GET", list_path, key=asked.key, body=None)
    return await run_lag(asked.address, asked.exchange(), list_request, rate=rate, count=count)


async def _until_arrived(
    arrivals: Arrivals, request: Request, member: str, rate: float, count: int, fault: str
) -> JsonObject:
    def answered(_: int, due_s: float, __: float, body: bytes) -> None:
        arrivals.sent(json.loads(body)[member], due_s)

    posts = await run_open(request.address, request.exchange(), rate=rate, count=count, on_success=answered)
    await arrivals.wait(ARRIVAL_S, fault)
    result = arrivals.tally.result(posts["elapsed_s"], 0.0)
    late = {name: posts[name] for name in ("offered_per_s", "sent_late_p50_ms", "sent_late_p99_ms")}
    return _with_failures({**result, **late}, posts["failures"])


async def _until(holds: Callable[[], bool]) -> None:
    """Wait for it, `ARRIVAL_S` at most."""
    with anyio.move_on_after(ARRIVAL_S):
        while not holds():
            await anyio.sleep(LOOK_S)


def _with_failures(result: JsonObject, more: Mapping[str, int]) -> JsonObject:
    failures = dict(result["failures"])
    for fault, times in more.items():
        failures[fault] = failures.get(fault, 0) + times
    return {**result, "failures": failures, "failed": sum(failures.values())}


JOBS: Final[dict[str, Job]] = {
    "closed": closed,
    "in_turn": in_turn,
    "bursts": bursts,
    "fanout": fanout,
    "offered": offered,
    "push": push,
    "claims": claims,
    "lag": lag,
    "make_floor": raw_nats.make_floor,
    "drop_floor": raw_nats.drop_floor,
    "appends": raw_nats.run_appends,
    "batches": raw_nats.run_batches,
    "pushed_appends": raw_nats.run_pushed_appends,
}
