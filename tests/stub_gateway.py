"""A gateway of one agent for the monitor's tests: the contract's answers from memory, over respx or a real socket."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import anyio
import httpx

from contracts.records import JsonObject

BASE_URL = "http://gateway.test"
AGENT_ID = "agent_abcdefghij12"
SLUG = "worker"

Answer = tuple[int, JsonObject]


@dataclass
class Live:
    """A live offer: who claimed it, if anybody did."""

    nonce: str = "n0nce"
    token: str | None = None
    contexts: list[JsonObject] = field(default_factory=list)
    outcome: JsonObject | None = None


@dataclass
class Work:
    """A background execution: the number of its present lease, and what came of it."""

    lease: int = 0
    leased: bool = False
    extended: int = 0
    contexts: list[JsonObject] = field(default_factory=list)
    outcome: JsonObject | None = None
    released: list[JsonObject] = field(default_factory=list)


class StubGateway:
    """Answers like the gateway does, unless it is told to be away, to answer claims late or to take leases back."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, JsonObject]] = []
        self.unheard: list[str] = []
        self.tokens: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self.ages: dict[str, float] = {}
        self.live: dict[str, Live] = {}
        self.work: dict[str, Work] = {}
        self.poll_finds_work = True
        self.knows_contexts = True
        self.proves_beats = True
        self.away = False
        self.refuse_extensions = False
        self.slow_claims_s = 0.0
        self.slow_contexts_s = 0.0
        self._routes: list[tuple[str, str, Callable[..., Answer]]] = [
            ("GET", r"/v1/agents/([^/]+)", self._agent),
            ("POST", r"/v1/agents/[^/]+/live-sessions", self._attach),
            ("POST", r"/v1/sessions/heartbeat", self._beats),
            ("DELETE", r"/v1/agents/[^/]+/live-sessions/([^/]+)", self._detach),
            ("POST", r"/v1/hosts/heartbeat", lambda _: (200, {"seen": [AGENT_ID]})),
            ("POST", r"/v1/hosts/echo", lambda _: (200, {"echoes": []})),
            ("GET", r"/v1/executions/claimable", self._claimable),
            ("POST", r"/v1/executions/claim", self._lease_next),
            ("POST", r"/v1/executions/([^/]+)/live-claim", self._live_claim),
            ("POST", r"/v1/executions/([^/]+)/claim", self._lease),
            ("POST", r"/v1/executions/([^/]+)/heartbeat", self._extend),
            ("POST", r"/v1/executions/([^/]+)/release", self._release),
            ("POST", r"/v1/executions/([^/]+)/in-context", self._in_context),
            ("POST", r"/v1/executions/([^/]+)/outcome", self._outcome),
        ]

    def requests(self, method: str, pattern: str) -> list[JsonObject]:
        """The bodies of the calls made so far whose path matches."""
        return [body for seen, path, body in self.calls if seen == method and re.fullmatch(pattern, path)]

    def answer(self, method: str, path: str, body: JsonObject) -> Answer:
        self.calls.append((method, path, body))
        for expected, pattern, handler in self._routes:
            match = re.fullmatch(pattern, path)
            if match is not None and expected == method:
                return handler(body, *map(unquote, match.groups()))
        return problem(404, "not_found")

    # --- answers ---------------------------------------------------------------------------------------------------

    def _agent(self, _: JsonObject, ref: str) -> Answer:
        if ref not in (SLUG, AGENT_ID, f"{SLUG}@max"):
            return problem(404, "agent_not_found")
        facts = {"heartbeat_age_sec": 120, "claim_window_s": 30}
        return 200, {"id": AGENT_ID, "slug": SLUG, "owner": "max", "address": f"{SLUG}@max", **facts}

    def _attach(self, body: JsonObject) -> Answer:
        label = body["label"]
        if label in self.tokens:
            return problem(409, "live_session_conflict")
        self.tokens[label] = body["session_token"]
        session_id = self.ids[label] = f"sess_{len(self.calls)}"
        proof = {"beat_proof": f"proof of {label}"} if self.proves_beats else {}
        return 201, {"id": session_id, "label": label, "is_default": label == "main", **proof}

    def _beats(self, body: JsonObject) -> Answer:
        labels = {self.ids[label]: label for label in self.tokens if label in self.ids}
        told = []
        for each in body["sessions"]:
            label = labels.get(each["session_id"])
            if label is not None:
                self.ages[label] = each["age_s"]
            told.append({"session_id": each["session_id"], "status": "connected" if label else "disconnected"})
        return 200, {"sessions": told}

    def _detach(self, _: JsonObject, label: str) -> Answer:
        return (200, {"label": label}) if self.tokens.pop(label, None) else problem(404, "live_session_not_found")

    def _claimable(self, _: JsonObject) -> Answer:
        before = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
        found = [
            {"execution_id": name, "message_id": message_of(name), "agent_id": AGENT_ID, "channel": "live"}
            | {"nonce": offer.nonce, "claim_before": before}
            for name, offer in self.live.items()
            if offer.token is None
        ]
        return 200, {"executions": found if self.poll_finds_work else []}

    def _live_claim(self, body: JsonObject, execution_id: str) -> Answer:
        offer = self.live.get(execution_id)
        if offer is None:
            return problem(409, "execution_closed")
        if body["session_token"] not in (*self.tokens.values(), offer.token):
            return problem(403, "invalid_session_token")
        if body.get("nonce") != offer.nonce:
            return problem(403, "push_proof_missing")
        if offer.token not in (None, body["session_token"]):
            return problem(409, "already_claimed")
        offer.token = body["session_token"]
        return 200, {"claimed": True, "level": "token+nonce", "message": view(execution_id)}

    def _lease_next(self, body: JsonObject) -> Answer:
        waiting = [name for name, work in self.work.items() if not work.leased and work.outcome is None]
        if not waiting or not self.poll_finds_work:
            return 200, {"claimed": False}
        return self._lease(body, waiting[0])

    def _lease(self, _: JsonObject, execution_id: str) -> Answer:
        work = self.work.get(execution_id)
        if work is None or work.leased or work.outcome is not None:
            return problem(409, "already_claimed")
        work.leased, work.lease = True, work.lease + 1
        lease = {"number": work.lease, "expires_at": (datetime.now(UTC) + timedelta(seconds=60)).isoformat()}
        answer = {"claimed": True, "execution_id": execution_id, "lease": lease, "attempt": work.lease}
        return 200, {**answer, "max_attempts": 3, "message": view(execution_id)}

    def _extend(self, body: JsonObject, execution_id: str) -> Answer:
        work = self.work[execution_id]
        if self.refuse_extensions or body["lease"] != work.lease:
            return problem(409, "stale_lease")
        work.extended += 1
        return 200, {"lease": {"number": work.lease, "expires_at": datetime.now(UTC).isoformat()}}

    def _release(self, body: JsonObject, execution_id: str) -> Answer:
        work = self.work[execution_id]
        if body["lease"] != work.lease or not work.leased:
            return problem(409, "stale_lease")
        work.leased = False
        work.released.append(body)
        return 200, view(execution_id)

    def _in_context(self, body: JsonObject, execution_id: str) -> Answer:
        if not self.knows_contexts:
            return problem(404, "not_found")
        target: Live | Work = self.live.get(execution_id) or self.work[execution_id]
        if target.outcome is not None or body.get("lease") != (target.lease if isinstance(target, Work) else None):
            return problem(409, "stale_lease")
        target.contexts.append(body)
        return 200, {"execution_id": execution_id, "in_context_at": datetime.now(UTC).isoformat()}

    def _outcome(self, body: JsonObject, execution_id: str) -> Answer:
        target: Live | Work = self.live.get(execution_id) or self.work[execution_id]
        if isinstance(target, Work) and body.get("lease") != target.lease:
            return problem(409, "stale_lease")
        if target.outcome not in (None, body):
            return problem(409, "outcome_conflict")
        target.outcome = body
        return 200, view(execution_id)

    # --- doors -----------------------------------------------------------------------------------------------------

    async def respond(self, request: httpx.Request) -> httpx.Response:
        """The side effect of a respx route."""
        if self.away:
            self.unheard.append(request.url.path)
            raise httpx.ConnectError("away")
        if request.url.path.endswith("/in-context"):
            await anyio.sleep(self.slow_contexts_s)
        status, answer = self.answer(request.method, request.url.path, json.loads(request.content or b"{}"))
        if request.url.path.endswith("/live-claim"):
            await anyio.sleep(self.slow_claims_s)
        return httpx.Response(status, json=answer)

    @contextmanager
    def served(self) -> Iterator[str]:
        """The same over a real socket; yields the base URL."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def problem(status: int, code: str) -> Answer:
    return status, {"type": "about:blank", "status": status, "error": {"code": code, "message": code, "status": status}}


def view(execution_id: str) -> JsonObject:
    """As much of a message view as anybody reads here."""
    return {
        "id": message_of(execution_id),
        "execution_id": execution_id,
        "to": {"agent_id": AGENT_ID, "slug": SLUG, "owner": "max"},
        "subject": "Quick question",
        "message": "line one\nline two \u2603",
        "metadata": {},
    }


def message_of(execution_id: str) -> str:
    return f"msg_{execution_id.removeprefix('exec_')[:26]}"


def _handler(stub: StubGateway) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body: Any = json.loads(self.rfile.read(length) or b"{}")
            status, answer = stub.answer(self.command, self.path.partition("?")[0], body)
            data = json.dumps(answer).encode()
            self.send_response(503 if stub.away else status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the names the standard library calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
