"""The gateway as the monitor sees it: its HTTP interface, with answers as values and errors by who should act."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, ValidationError

from contracts.errors import (
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    PostroomError,
    Rejected,
    Unauthenticated,
    Unavailable,
)
from contracts.ids import AGENT_ID, EXECUTION_ID, SLUG
from contracts.records import JsonObject
from contracts.words import Channel, SessionStatus
from infra.broker_url import BrokerUrl
from monitor.ports import Attached, BrokerLogin, HostedAgent, Leased, Report, Waiting

TIMEOUT: Final = httpx.Timeout(10.0, connect=3.0)
LIMITS: Final = httpx.Limits(max_connections=64, max_keepalive_connections=16)
RETRY_AFTER_MAX_S: Final = 60.0
CLAIMABLE_LIMIT: Final = 100
CONNECTED: Final = SessionStatus.CONNECTED.value
ATTACHES_AS: Final[JsonObject] = {"attestation": "token+nonce", "echoes": True}

_BY_STATUS: Final[Mapping[int, type[Rejected]]] = {
    400: Malformed,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: Malformed,
    415: Malformed,
    422: Invalid,
}
_TRY_AGAIN: Final = frozenset({408, 425, 429})
"""Refusals of the moment: the same request may succeed a little later."""


def _matching(pattern: Any) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.match(text):
            raise ValueError("not of the expected form")
        return text

    return AfterValidator(check)


def _address(url: str) -> str:
    """Where the broker is and nothing more: which files to use is for this host to say. Raises `ValueError`."""
    if "?" in url or BrokerUrl.parse(url).says_who:
        raise ValueError("not an address alone")
    return url


ExecutionId = Annotated[str, _matching(EXECUTION_ID)]
AgentId = Annotated[str, _matching(AGENT_ID)]
Slug = Annotated[str, _matching(SLUG)]


Answer = TypeVar("Answer", bound=BaseModel)


class _AgentAnswer(BaseModel):
    id: AgentId
    slug: Slug
    address: str
    heartbeat_age_sec: int
    claim_window_s: int


class _SessionAnswer(BaseModel):
    id: str
    is_default: bool = False
    beat_proof: str | None = None


class _LoginAnswer(BaseModel):
    jwt: str = Field(repr=False)
    subjects: frozenset[str]
    expires_at: AwareDatetime
    renew_after_s: float = Field(gt=0)
    nats_url: Annotated[str, AfterValidator(_address)] | None = None


class _BeatenSession(BaseModel):
    session_id: str
    status: str


class _BeatsAnswer(BaseModel):
    sessions: list[_BeatenSession]


class _Claimable(BaseModel):
    execution_id: ExecutionId
    message_id: str
    agent_id: AgentId
    channel: Literal[Channel.BG, Channel.LIVE]
    nonce: str | None = None
    claim_before: AwareDatetime | None = None


class _ClaimableAnswer(BaseModel):
    executions: list[_Claimable]


class _LiveClaimAnswer(BaseModel):
    message: JsonObject
    level: str | None = None
    outcome_before: AwareDatetime | None = None


class _Lease(BaseModel):
    number: int


class _LeaseAnswer(BaseModel):
    execution_id: ExecutionId
    lease: _Lease
    attempt: int = 1
    message: JsonObject


class _NextAnswer(BaseModel):
    claimed: bool


class _Problem(BaseModel):
    code: str = Field(max_length=64)
    message: str = Field(default="", max_length=500)


class _ProblemAnswer(BaseModel):
    error: _Problem


class GatewayClient:
    """One HTTP client for everything. Made by `GatewayClient.open`."""

    def __init__(self, client: httpx.AsyncClient, *, version: str | None = None) -> None:
        self._client = client
        self._version = {"monitor_version": version} if version else {}

    @classmethod
    @asynccontextmanager
    async def open(cls, base_url: str, key: str, *, version: str | None = None) -> AsyncIterator["GatewayClient"]:
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=TIMEOUT, limits=LIMITS) as client:
            yield cls(client, version=version)

    # --- agents and presence ---------------------------------------------------------------------------------------

    async def agent(self, ref: str) -> HostedAgent:
        found = _read(_AgentAnswer, await self._call("GET", f"/v1/agents/{_segment(ref)}"))
        return HostedAgent(
            id=found.id,
            slug=found.slug,
            address=found.address,
            heartbeat_age_s=found.heartbeat_age_sec,
            claim_window_s=found.claim_window_s,
        )

    async def broker_login(self, monitor_id: str, public_key: str, agent_ids: Sequence[str]) -> BrokerLogin:
        body = {"monitor_id": monitor_id, "public_key": public_key, "agents": list(agent_ids)}
        response = await self._call("POST", "/v1/monitors/credentials", body)
        found = _read(_LoginAnswer, response)
        served_at = _served_at(response)
        return BrokerLogin(
            jwt=found.jwt,
            subjects=found.subjects,
            # By the server's own clock, whatever ours shows.
            lives_s=(found.expires_at - served_at).total_seconds() if served_at else found.renew_after_s,
            renew_after_s=found.renew_after_s,
            nats_url=found.nats_url,
        )

    async def attach(self, agent_id: str, label: str, session_token: str, monitor_id: str) -> Attached:
        body = {"label": label, "session_token": session_token, "monitor_id": monitor_id}
        body |= {**ATTACHES_AS, **self._version}
        found = _read(_SessionAnswer, await self._call("POST", f"/v1/agents/{_segment(agent_id)}/live-sessions", body))
        return Attached(session_id=found.id, is_default=found.is_default, beat_proof=found.beat_proof)

    async def detach(self, agent_id: str, label: str) -> None:
        await self._call("DELETE", _session(agent_id, label))

    async def beat_sessions(self, ages_s: Mapping[str, float]) -> Collection[str]:
        body = {"sessions": [{"session_id": session_id, "age_s": age_s} for session_id, age_s in ages_s.items()]}
        told = _read(_BeatsAnswer, await self._call("POST", "/v1/sessions/heartbeat", body)).sessions
        return [each.session_id for each in told if each.status != CONNECTED]

    async def beat_host(self, host_id: str, agent_ids: Sequence[str], echoing: Sequence[str]) -> None:
        body = {"host_id": host_id, "agents": list(agent_ids), "echoes": list(echoing), **self._version}
        await self._call("POST", "/v1/hosts/heartbeat", body)

    async def echo(self, due: Mapping[str, str | None]) -> None:
        echoes = [
            {"agent_id": agent_id} if echo_id is None else {"agent_id": agent_id, "echo_id": echo_id}
            for agent_id, echo_id in due.items()
        ]
        await self._call("POST", "/v1/hosts/echo", {"echoes": echoes})

    # --- executions ------------------------------------------------------------------------------------------------

    async def claimable(self, agent_id: str) -> Sequence[Waiting]:
        query = {"agent": agent_id, "limit": str(CLAIMABLE_LIMIT)}
        response = await self._call("GET", "/v1/executions/claimable", query=query)
        served_at = _served_at(response)
        return [
            Waiting(**item.model_dump(), served_at=served_at) for item in _read(_ClaimableAnswer, response).executions
        ]

    async def live_claim(self, execution_id: str, session_token: str, nonce: str | None) -> JsonObject:
        body: JsonObject = {"exec_id": execution_id, "session_token": session_token}
        if nonce is not None:
            body["nonce"] = nonce
        response = await self._call("POST", f"/v1/executions/{_segment(execution_id)}/live-claim", body)
        return _read(_LiveClaimAnswer, response).model_dump(mode="json")

    async def lease(self, execution_id: str, worker_id: str, lease_s: int) -> Leased:
        body = {"worker_id": worker_id, "lease_s": lease_s}
        return _leased(await self._call("POST", f"/v1/executions/{_segment(execution_id)}/claim", body))

    async def lease_next(self, agent_id: str, worker_id: str, lease_s: int) -> Leased | None:
        body = {"agent": agent_id, "worker_id": worker_id, "lease_s": lease_s}
        response = await self._call("POST", "/v1/executions/claim", body)
        return _leased(response) if _read(_NextAnswer, response).claimed else None

    async def extend(self, execution_id: str, number: int, lease_s: int) -> None:
        body = {"lease": number, "lease_s": lease_s}
        await self._call("POST", f"/v1/executions/{_segment(execution_id)}/heartbeat", body)

    async def release(self, execution_id: str, number: int, reason: str, detail: str | None) -> None:
        body: JsonObject = {"lease": number, "reason": reason}
        if detail:
            body["detail"] = detail
        await self._call("POST", f"/v1/executions/{_segment(execution_id)}/release", body)

    async def in_context(self, execution_id: str, lease: int | None) -> None:
        body = {} if lease is None else {"lease": lease}
        await self._call("POST", f"/v1/executions/{_segment(execution_id)}/in-context", body)

    async def outcome(self, execution_id: str, report: Report) -> None:
        await self._call("POST", f"/v1/executions/{_segment(execution_id)}/outcome", _outcome_body(report))

    # --- one call --------------------------------------------------------------------------------------------------

    async def _call(
        self, method: str, path: str, body: object = None, *, query: Mapping[str, str] | None = None
    ) -> httpx.Response:
        try:
            response = await self._client.request(method, path, json=body, params=query)
        except (httpx.TransportError, httpx.DecodingError) as error:
            # Whatever became of the request: each of ours may be made again.
            raise Unavailable("gateway_unreachable", f"no answer from the gateway: {type(error).__name__}") from error
        if not response.is_success:
            raise _error(response)
        return response


def _segment(text: str) -> str:
    return quote(text, safe="@")


def _session(agent_id: str, label: str) -> str:
    return f"/v1/agents/{_segment(agent_id)}/live-sessions/{_segment(label)}"


def _leased(response: httpx.Response) -> Leased:
    answer = _read(_LeaseAnswer, response)
    return Leased(
        execution_id=answer.execution_id,
        number=answer.lease.number,
        attempt=answer.attempt,
        message=answer.message,
    )


def _outcome_body(report: Report) -> JsonObject:
    optional = {
        "error": report.error,
        "executed_via": report.executed_via,
        "lease": report.lease,
    }
    present = {name: value for name, value in optional.items() if value is not None}
    return {"success": report.success, "result": report.result, "metadata": report.metadata, **present}


def _read(model: type[Answer], response: httpx.Response) -> Answer:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        # A proxy's page, or a gateway in the middle of its deployment: not something to end over.
        raise Unavailable("gateway_incomprehensible", "the gateway's answer is not what was agreed") from error


def _error(response: httpx.Response) -> PostroomError:
    status = response.status_code
    code, message = _problem(response)
    if 400 <= status < 500 and status not in _TRY_AGAIN:
        return _BY_STATUS.get(status, Rejected)(code, message, status=status)
    return Unavailable(code, message, retry_after_s=_retry_after_s(response))


def _problem(response: httpx.Response) -> tuple[str, str]:
    try:
        problem = _ProblemAnswer.model_validate_json(response.content).error
    except ValidationError:
        return f"http_{response.status_code}", "The gateway did not say why."
    return problem.code, problem.message


def _retry_after_s(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), RETRY_AFTER_MAX_S) if text.isascii() and text.isdigit() else 1.0


def _served_at(response: httpx.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError):
        return None
