"""The floors beneath the broker: nats-py and the server, with the ledger's own stream settings and nothing of ours.

appends        one fsynced append each, so many in flight
batches        atomic batches, each record on a subject of its own with its expected sequence: the group commit
pushed_appends an append, then a core publish, until a subscriber on another connection has it
"""

import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js import JetStreamContext

from cli.benchmark.metronome import Metronome, beating
from cli.benchmark.tally import Tally
from infra.broker_url import BrokerUrl
from infra.nats_client import login

STREAM: Final = "BENCH_FLOOR"
SUBJECTS: Final = "bench.floor"
PUSHES: Final = "bench.push"
MAX_BYTES: Final = 1024**3
ENVELOPE_BYTES: Final = 330
"""As long as a live push."""
TIMEOUT_S: Final = 10.0
GRACE_S: Final = 10.0


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    address = BrokerUrl.parse(url)
    client = await nats.connect(
        list(address.servers), **login(address.creds(), address.tls()), allow_reconnect=False, name="postroom-bench"
    )
    try:
        yield client
    finally:
        await client.close()


async def make_floor(url: str, ledger: str) -> dict[str, Any]:
    """A fresh stream set up like `ledger`; returns how long the ledger's first record is, to append as much."""
    async with connected(url) as client:
        config = (await _api(client, f"STREAM.INFO.{ledger}"))["config"]
        # The copy for whoever waits is the product's own doing, not the broker's floor.
        config.pop("republish", None)
        config |= {"name": STREAM, "subjects": [f"{SUBJECTS}.>"], "max_bytes": MAX_BYTES}
        await _delete_floor(client)
        await _api(client, f"STREAM.CREATE.{STREAM}", config)
        first = await _api(client, f"STREAM.INFO.{ledger}")
        record = await _api(client, f"STREAM.MSG.GET.{ledger}", {"seq": first["state"]["first_seq"]})
        return {"record_bytes": len(record["message"]["data"]) * 3 // 4}


async def drop_floor(url: str) -> dict[str, Any]:
    async with connected(url) as client:
        await _delete_floor(client)
    return {}


async def run_appends(url: str, *, in_flight: int, duration_s: float, record_bytes: int) -> dict[str, Any]:
    tally, subject, payload = Tally(), _fresh_subject(), b"x" * record_bytes
    async with connected(url) as client:
        stream = client.jetstream()
        started_s, cpu_s = time.perf_counter(), time.process_time()

        async def append_in_turn(worker: int) -> None:
            number = 0
            while (now := time.perf_counter()) < started_s + duration_s:
                number += 1
                await _append(stream, f"{subject}.{worker}.{number}", payload, now, tally)

        async with anyio.create_task_group() as tasks:
            for worker in range(in_flight):
                tasks.start_soon(append_in_turn, worker)
        return tally.result(time.perf_counter() - started_s, time.process_time() - cpu_s)


async def run_batches(url: str, *, size: int, duration_s: float, record_bytes: int) -> dict[str, Any]:
    """Batches of `size`, one in flight; rate and latency are those of the records in them."""
    tally, subject, payload = Tally(), _fresh_subject(), b"x" * record_bytes
    async with connected(url) as client:
        started_s, cpu_s, number = time.perf_counter(), time.process_time(), 0
        while (now := time.perf_counter()) < started_s + duration_s:
            number += 1
            fault = await _append_batch(client, f"{subject}.{number}", payload, size)
            latency_s = time.perf_counter() - now
            for _ in range(size):
                tally.settle(latency_s, fault)
        return tally.result(time.perf_counter() - started_s, time.process_time() - cpu_s)


async def run_pushed_appends(url: str, *, rate: float, count: int, record_bytes: int) -> dict[str, Any]:
    """Each beat appends and then publishes; the latency ends when the subscriber's callback runs."""
    run = PushedAppends(count, b"x" * record_bytes)
    async with connected(url) as client, connected(url) as subscriber, anyio.create_task_group() as tasks:
        await subscriber.subscribe(f"{PUSHES}.>", cb=run.heard)
        await subscriber.flush()
        stream = client.jetstream()

        def beat(metronome: Metronome, number: int) -> None:
            run.due_s[number] = metronome.due_s(number)
            tasks.start_soon(run.append_and_publish, client, stream, number)

        async with beating(rate, count, beat) as metronome:
            with anyio.move_on_after(count / rate + GRACE_S):
                await run.complete.wait()
        elapsed_s = time.perf_counter() - metronome.start_s
    run.tally.fail("push missing", count - run.tally.n_ok - run.tally.n_failed)
    return run.tally.result(elapsed_s, 0.0)


class PushedAppends:
    """What `run_pushed_appends` has under way."""

    def __init__(self, count: int, payload: bytes) -> None:
        self._left = count
        self._payload = payload
        self._subject = _fresh_subject()
        self.due_s: dict[int, float] = {}
        self.tally = Tally()
        self.complete = anyio.Event()

    async def append_and_publish(self, client: Client, stream: JetStreamContext, number: int) -> None:
        try:
            await stream.publish(f"{self._subject}.{number}", self._payload, timeout=TIMEOUT_S)
            await client.publish(f"{PUSHES}.{number}", b"x" * ENVELOPE_BYTES)
        except Error as error:
            self.tally.fail(type(error).__name__)

    async def heard(self, message: Msg) -> None:
        number = int(message.subject.rpartition(".")[2])
        self.tally.settle(time.perf_counter() - self.due_s[number], None)
        self._left -= 1
        if not self._left:
            self.complete.set()


async def _append(stream: JetStreamContext, subject: str, payload: bytes, since_s: float, tally: Tally) -> None:
    try:
        await stream.publish(subject, payload, timeout=TIMEOUT_S)
    except Error as error:
        tally.fail(type(error).__name__)
    else:
        tally.settle(time.perf_counter() - since_s, None)


async def _append_batch(client: Client, subject: str, payload: bytes, size: int) -> str | None:
    """Store one batch; None, or what went wrong."""
    headers = {"Nats-Expected-Last-Subject-Sequence": "0", "Nats-Batch-Id": secrets.token_hex(8)}
    for number in range(1, size):
        await client.publish(f"{subject}.{number}", payload, headers=headers | {"Nats-Batch-Sequence": str(number)})
    last = headers | {"Nats-Batch-Sequence": str(size), "Nats-Batch-Commit": "1"}
    try:
        answer = await client.request(f"{subject}.{size}", payload, timeout=TIMEOUT_S, headers=last)
        verdict = json.loads(answer.data)
    except (Error, ValueError) as error:
        return type(error).__name__
    return None if verdict.get("count") == size else "batch refused"


async def _api(client: Client, verb: str, body: Any = None) -> dict[str, Any]:
    payload = b"" if body is None else json.dumps(body).encode()
    answer: dict[str, Any] = json.loads((await client.request(f"$JS.API.{verb}", payload, timeout=TIMEOUT_S)).data)
    if "error" in answer:
        raise RuntimeError(f"{verb}: {answer['error']}")
    return answer


async def _delete_floor(client: Client) -> None:
    await client.request(f"$JS.API.STREAM.DELETE.{STREAM}", b"", timeout=TIMEOUT_S)


def _fresh_subject() -> str:
    return f"{SUBJECTS}.{secrets.token_hex(6)}"
