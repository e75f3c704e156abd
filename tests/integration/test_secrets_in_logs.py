"""Nothing that was handed out as a secret is in any log: of the gateway's process and its libraries, or of programs."""

import json
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
import pytest
import structlog

from infra.embedded import NatsEndpoint, RedisEndpoint
from monitor.session import SessionFolder
from tests.http_rig import Caller, Rig, running_rig
from tests.log_secrets import SHAPES, secret_lines, secrets_in
from tests.oidc_provider import AUDIENCE, Issuer, bad_tokens, provider
from tests.program_caller import PATIENCE_S
from tests.programs import ROOT, programs
from tests.webhook_zoo import receiving

CONFIRMED: Final = {"X-Confirm-Destructive": "true"}
KINDS: Final = ("pr_", "whsec_", "eyJ")


@dataclass(slots=True)
class Handed:
    """Every secret that left the gateway in an answer, and those that were sent to it."""

    secrets: set[str] = field(default_factory=set)

    async def note(self, response: httpx.Response) -> None:
        body = await response.aread()
        if response.headers.get("content-type", "").startswith("application/json") and body:
            self.secrets |= secrets_in(json.loads(body))

    def in_text(self, text: str) -> set[str]:
        return {secret for secret in self.secrets if secret in text}


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with provider() as running:
        yield running


@pytest.fixture
async def rig(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str, issuer: Issuer
) -> AsyncIterator[Rig]:
    more: dict[str, Any] = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, "webhook_allow_loopback": True}
    async with running_rig(
        nats_server, redis_server, prefix, open_registration=True, webhook_secret_readable=True, **more
    ) as running:
        yield running


async def test_a_gateway_and_its_libraries_log_no_secret_even_before_any_is_blacked_out(
    rig: Rig, issuer: Issuer, caplog: pytest.LogCaptureFixture, nats_server: NatsEndpoint, redis_server: RedisEndpoint
) -> None:
    handed = Handed({rig.admin.key, rig.max.key, rig.eve.key})
    # The client that calls is the caller's, not the gateway's: what it logs of URLs is his own affair.
    caplog.set_level(logging.WARNING, logger="httpx")
    rig.http.event_hooks["response"].append(handed.note)
    with structlog.testing.capture_logs() as lines, caplog.at_level(logging.DEBUG):
        await use_keys(rig, handed)
        await use_sessions(rig, handed)
        await use_webhooks(rig)
        await use_tokens(rig, issuer, handed)
        await send_secrets_where_none_belong(rig)
    text = "\n".join([*(repr(line) for line in lines), *(repr(vars(record)) for record in caplog.records)])

    assert sum(line["event"] == "request" for line in lines) > 100
    assert all(any(secret.startswith(kind) for secret in handed.secrets) for kind in KINDS)
    assert len(handed.secrets) > 20
    assert handed.in_text(text) == set()
    assert SHAPES.findall(text) == []
    assert nats_server.url not in text
    assert redis_server.url not in text


async def use_keys(rig: Rig, handed: Handed) -> None:
    minted = await rig.max.post("/v1/keys", {"name": "second"}, status=201)
    await rig.max.post(f"/v1/keys/{minted['key_id']}/rotate", status=201)
    await rig.nobody.post("/v1/auth/register", {"email": "jo@example.com"}, status=201)
    await rig.eve.post("/v1/auth/key/regenerate", headers=CONFIRMED)
    for wrong in (f"{minted['key']}x", minted["key"][:-1], minted["key"].upper()):
        handed.secrets.add(wrong)
        await Caller(http=rig.http, key=wrong, owner="").call("GET", "/v1/auth/me")
    await rig.max.delete(f"/v1/keys/{minted['key_id']}", status=204)


async def use_sessions(rig: Rig, handed: Handed) -> None:
    await rig.max.agent("mac", "live", "inbox")
    own = secrets.token_hex(20)
    handed.secrets.add(own)
    await rig.max.session("mac", "own", session_token=own)
    session = await rig.max.session("mac", "main", attestation="token+nonce")
    sent = await rig.max.send("mac", delivery_mode="live")
    [offer] = (await rig.max.get("/v1/executions/claimable", agent="mac"))["executions"]
    path = f"/v1/executions/{sent['execution_id']}/live-claim"
    proof = {"session_token": session["session_token"], "nonce": offer["nonce"]}
    for wrong in ({**proof, "nonce": "x" * 40}, {**proof, "session_token": own}, proof, proof):
        await rig.max.call("POST", path, json=wrong)
    assert offer["nonce"] in handed.secrets


async def use_webhooks(rig: Rig) -> None:
    async with receiving() as receiver, receiving(status=500) as broken:
        for slug, url in (("hook", receiver.url), ("broken", broken.url), ("away", "http://127.0.0.1:9443/hook")):
            await rig.max.agent(slug, "webhook", webhook_url=url)
            await rig.max.post(f"/v1/agents/{slug}/webhook/test")
            await rig.max.post(f"/v1/agents/{slug}/webhook/rotate", {"signature": "v1a"})
            await rig.max.get(f"/v1/agents/{slug}/webhook")
        await rig.max.post("/v1/agents/hook/webhook-secret/regenerate", headers=CONFIRMED)
        await rig.max.get("/v1/agents/hook/webhook-secret")
        wanted = {"event_type": "*", "delivery_target": "webhook", "webhook_url": receiver.url}
        await rig.max.post("/v1/agents/hook/subscriptions", wanted, status=201)


async def use_tokens(rig: Rig, issuer: Issuer, handed: Handed) -> None:
    tokens = {"good": issuer.token(scope="agents:read"), **bad_tokens(issuer)}
    for token in tokens.values():
        if len(token) > 16:
            handed.secrets.add(token)
        await rig.http.get("/v1/agents", headers={b"authorization": f"Bearer {token}".encode()})


async def send_secrets_where_none_belong(rig: Rig) -> None:
    """In the URL, in names, in bodies that are refused, and in a message."""
    for path in (f"/v1/agents?api_key={rig.max.key}", f"/v1/agents/{rig.max.key}", f"/{rig.max.key}"):
        await rig.nobody.call("GET", path)
        await rig.max.call("GET", path)
    for body in (f'{{"to": "{rig.max.key}"', json.dumps({"to": rig.max.key, "message": 7, rig.max.key: 1})):
        await rig.max.call("POST", "/v1/messages", content=body, headers={"content-type": "application/json"})
    await rig.max.call("GET", "/v1/agents", headers={"cookie": rig.max.key, "x-api-key": rig.max.key})
    await rig.max.send("mac", message=f"My key is {rig.max.key}.", delivery_mode="inbox")


HANDLER: Final = """
import json, sys
json.loads(sys.stdin.readline())
print(json.dumps({"success": True}))
"""


async def test_programs_log_no_secret_at_their_most_talkative(tmp_path: Path, issuer: Issuer) -> None:
    talkative = {
        "POSTROOM_LOG_LEVEL": "debug",
        "POSTROOM_OIDC_ISSUER": issuer.url,
        "POSTROOM_OIDC_AUDIENCE": AUDIENCE,
    }
    handed = Handed()
    async with programs(tmp_path, settings=talkative) as post, receiving() as receiver:
        post.api.event_hooks["response"].append(handed.note)
        handed.secrets |= {post.key, (tmp_path / "admin.key").read_text().strip(), issuer.token()}
        await post.get("/v1/agents")
        await post.post("/v1/keys", {"name": "second"})
        await post.send(await post.agent("webhook", webhook_url=receiver.url))
        agent = await post.agent("live", "bg")
        await post.start_monitor(agent, handler=HANDLER)
        await work_both_ways(post, agent, handed)
        token = next(secret for secret in handed.secrets if secret.startswith("eyJ"))
        await post.once("GET", "/v1/agents", headers={"authorization": f"Bearer {token}"})
        await post.once("GET", "/v1/agents", headers={"authorization": f"Bearer {post.key}x"})
        servers = (post.nats.endpoint.url, post.redis.endpoint.url)
        await post.stop_monitor()
    logs = {path.name: path.read_text(errors="replace") for path in tmp_path.glob("*.log")}

    assert {"gateway-0.log", "router-0.log", "monitor.log"} <= set(logs)
    assert '"event":"request"' in logs["gateway-0.log"]
    for name, text in logs.items():
        assert handed.in_text(text) == set(), name
        assert secret_lines([(f"log of {name}", text)]) == [], name
        assert not [url for url in servers if "@" in url and url in text], name


async def work_both_ways(post: Any, agent: Any, handed: Handed) -> None:
    """A message to a live session, claimed with its nonce, and one to a background program."""
    session = SessionFolder(post.state_dir, agent["slug"], "main")
    session.open()
    await session.wait_attached(PATIENCE_S)
    sent = await post.send(agent, "live")
    with anyio.fail_after(PATIENCE_S):
        offer = await anext(session.offers())
    handed.secrets |= secrets_in(vars(offer) if hasattr(offer, "__dict__") else {})
    session.claim(offer)
    await session.wait_answer(sent["execution_id"], PATIENCE_S)
    session.outcome(sent["execution_id"], success=True)
    await post.until(sent, "delivered")
    await post.until(await post.send(agent, "bg"), "delivered")


CHILD: Final = """
import structlog, logging

def test_it():
    {statement}
"""
HOOK: Final = "from tests.log_secrets import pytest_runtest_makereport as pytest_runtest_makereport\n"
KEY: Final = f"pr_{'a' * 12}_{'B' * 43}_{'c' * 6}"


@pytest.mark.parametrize(
    ("statement", "is_caught"),
    [
        (f'structlog.get_logger().info("minted", key="{KEY}")', True),
        (f'structlog.get_logger().info("minted", text="Bearer {KEY}")', True),
        (f'logging.getLogger("library").warning("sent %s", "{KEY}")', True),
        ('logging.getLogger("library").warning("nats://core:passw0rd@127.0.0.1:4222")', True),
        ('structlog.get_logger().info("seen", text="whsec_" + "A" * 32)', True),
        ('structlog.get_logger().info("seen", text="SU" + "A" * 56)', True),
        ('structlog.get_logger().info("seen", text="eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYXgifQ.c2ln")', True),
        ('structlog.get_logger().info("minted", key_id="a" * 12)', False),
        (f'print("{KEY}")', False),
    ],
)
def test_a_test_that_logs_a_secret_fails(tmp_path: Path, statement: str, is_caught: bool) -> None:
    (tmp_path / "conftest.py").write_text(HOOK)
    (tmp_path / "test_child.py").write_text(CHILD.format(statement=statement))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    child = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "1 passed" in child.stdout
    assert child.returncode == int(is_caught)
    assert ("a log line of this test holds a secret" in child.stdout) is is_caught
