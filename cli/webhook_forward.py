"""`postroom listen --forward-to`: an agent's webhooks, copied to a program on this machine as they are posted.

    broker ──hint──▶ fetch over HTTPS ──▶ signature checked ──▶ POST to the program ──▶ a line

What the agent's own receiver gets, and what counts as delivered, stays as it is.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from cli.api import JsonObject, segment
from cli.async_api import AsyncApi
from cli.failures import Failure, Misused
from cli.output import complain, one_line, print_line

if TYPE_CHECKING:
    import httpx
    from anyio.streams.memory import MemoryObjectReceiveStream

    from cli.api import Api
    from contracts.records import Echo, Envelope

    Hints = MemoryObjectReceiveStream[str]

HELD: Final = 1_000
"""Webhooks that may wait for a program which is slower than they come."""
FORWARD_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """What is copied, and to where. `secret` checks `v1` signatures; the public key of `v1a` is asked for."""

    agent: str
    to: str
    secret: str | None
    as_json: bool


class Forwarder:
    """Fetches, checks, forwards and prints, one webhook at a time."""

    def __init__(self, api: AsyncApi, client: "httpx.AsyncClient", wanted: Forwarding, public_key: str | None) -> None:
        self._api = api
        self._client = client
        self._wanted = wanted
        self._public_key = public_key

    async def forward(self, reference: str) -> bool:
        """Copy the webhook of this message or execution; whether the program answered 2xx."""
        delivery = await self._api.get(f"/v1/executions/{segment(reference)}/webhook")
        told = {
            "message_id": delivery["message_id"],
            "execution_id": delivery["execution_id"],
            "signature": check(delivery, secret=self._wanted.secret, public_key=self._public_key),
            **await self._post(delivery),
        }
        print_line(told) if self._wanted.as_json else print(_line(told), flush=True)
        return told["status"] is not None and 200 <= told["status"] < 300

    async def _post(self, delivery: JsonObject) -> JsonObject:
        import httpx

        headers = {**delivery["headers"], "content-type": "application/json", "user-agent": "postroom-listen/1"}
        began = time.monotonic()
        try:
            answer = await self._client.post(self._wanted.to, content=delivery["body"].encode(), headers=headers)
            status, error = answer.status_code, None
        except httpx.RequestError as failed:
            status, error = None, type(failed).__name__
        return {"status": status, "error": error, "latency_ms": round((time.monotonic() - began) * 1000)}


def forward_webhooks(api: "Api", wanted: Forwarding, *, nats_url: str | None, replayed: str) -> None:
    """Listen along until Ctrl-C, or copy one webhook and end. Raises `Failure`."""
    import anyio

    from infra.logs import configure_logs

    configure_logs("error")
    if nats_url:
        _require_usable(nats_url)

    async def work() -> None:
        async with AsyncApi.open(api.url, api.key) as calls:
            await (replay(calls, replayed, wanted) if replayed else listen_along(calls, api, nats_url, wanted))

    try:
        anyio.run(work)
    except BaseExceptionGroup as group:
        # Of several that ended together, the first says why.
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _require_usable(nats_url: str) -> None:
    from infra.broker_url import BadBrokerUrl, BrokerUrl

    try:
        address = BrokerUrl.parse(nats_url)
        address.creds()
        address.tls()
    except BadBrokerUrl as error:
        raise Misused(f"--nats-url: {error}") from None


async def listen_along(api: AsyncApi, caller: "Api", nats_url: str | None, wanted: Forwarding) -> None:
    """Copy every webhook of the agent from now on, until cancelled."""
    agent = await api.get(f"/v1/agents/{segment(wanted.agent)}/webhook")
    async with _forwarder(api, wanted, agent["public_key"]) as forwarder:
        async with _hints(caller, nats_url, agent["agent_id"], partial(_invite, wanted)) as hints:
            async for execution_id in hints:
                try:
                    await forwarder.forward(execution_id)
                except Failure as failed:
                    complain(f"postroom: {execution_id}: {failed}")


async def replay(api: AsyncApi, message_id: str, wanted: Forwarding) -> None:
    """Copy the webhook of one message, signed now. Raises `Failure` when the program does not take it."""
    agent = await api.get(f"/v1/agents/{segment(wanted.agent)}/webhook")
    async with _forwarder(api, wanted, agent["public_key"]) as forwarder:
        if not await forwarder.forward(message_id):
            raise Failure("the program did not answer 2xx")


def check(delivery: JsonObject, *, secret: str | None, public_key: str | None) -> str:
    """Whether what was fetched is signed as it should be: `valid`, `invalid`, or `unchecked` without a key."""
    from standardwebhooks import Webhook, WebhookVerificationError

    if public_key is not None:
        return "valid" if _is_signed_by(public_key, delivery) else "invalid"
    if secret is None:
        return "unchecked"
    try:
        Webhook(secret).verify(delivery["body"], delivery["headers"])
    except (WebhookVerificationError, ValueError):
        return "invalid"
    return "valid"


def _is_signed_by(public_key: str, delivery: JsonObject) -> bool:
    import base64

    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    headers = delivery["headers"]
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{delivery['body']}".encode()
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_")))
    for signature in headers["webhook-signature"].split():
        version, _, encoded = signature.partition(",")
        if version == "v1a":
            try:
                key.verify(base64.b64decode(encoded), content)
            except InvalidSignature:
                continue
            return True
    return False


@asynccontextmanager
async def _forwarder(api: AsyncApi, wanted: Forwarding, public_key: str | None) -> AsyncIterator[Forwarder]:
    """With a client of its own: no proxies, since the program is on this machine, and no redirects."""
    import httpx

    async with httpx.AsyncClient(timeout=FORWARD_TIMEOUT_S, trust_env=False, follow_redirects=False) as client:
        yield Forwarder(api, client, wanted, public_key)


@asynccontextmanager
async def _hints(
    caller: "Api", nats_url: str | None, agent_id: str, subscribed: Callable[[], None]
) -> "AsyncIterator[Hints]":
    """What the broker says is being posted, from the moment `subscribed` is called."""
    import anyio

    from contracts.subjects import pushes_of
    from contracts.words import Channel
    from infra.gateway_client import GatewayClient
    from monitor.__main__ import pushes

    given, taken = anyio.create_memory_object_stream[str](HELD)

    def heard(envelope: "Envelope") -> None:
        try:
            given.send_nowait(envelope.execution_id)
        except anyio.WouldBlock:
            complain(f"postroom: {envelope.execution_id} is not forwarded: the program is too slow; replay it later")

    def ignore(_: "Echo") -> None:
        return

    key = caller.key or ""
    async with (
        given,
        taken,
        GatewayClient.open(caller.url, key) as gateway,
        anyio.create_task_group() as tasks,
    ):
        feed = pushes(gateway, _listener_id(key), nats_url)
        tasks.start_soon(feed.follow, [pushes_of(Channel.WEBHOOK, agent_id)], heard, subscribed, ignore)
        yield taken
        tasks.cancel_scope.cancel()


def _listener_id(key: str) -> str:
    """As what we connect: the same each time, so that listening leaves one monitor behind and not many."""
    import hashlib
    import socket

    return f"listen-{hashlib.sha256(f'{socket.gethostname()} {key}'.encode()).hexdigest()[:16]}"


def _invite(wanted: Forwarding) -> None:
    complain(f"Webhooks of {wanted.agent} are copied to {wanted.to}; Ctrl-C ends it.")


def _line(told: JsonObject) -> str:
    outcome = told["status"] if told["status"] is not None else one_line(told["error"])
    return f"{told['message_id']}  {outcome} in {told['latency_ms']} ms  signature {told['signature']}"


def destination(text: str) -> str:
    """The URL to forward to. Raises `Misused` for what is none."""
    import httpx

    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise Misused("--forward-to is a URL such as http://localhost:3000/hook")
    return text
