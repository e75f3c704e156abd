"""The bodies of those who do the work: claims, leases, releases and outcomes."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field

from gateway.schemas import Body, Metadata, Name, Reference

MIN_LEASE_S, MAX_LEASE_S, DEFAULT_LEASE_S = 10, 900, 60
MAX_DETAIL = 2_000

LeaseSeconds: TypeAlias = Annotated[int, Field(ge=MIN_LEASE_S, le=MAX_LEASE_S)]
LeaseNumber: TypeAlias = Annotated[int, Field(ge=1, le=2**53)]


class LiveClaim(Body):
    """A live session claims what was pushed to it. An absent token is answered like a wrong one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"session_token": "01jx5k9v3m7q2w8r4t6y0zacde"}]})

    exec_id: str | None = None
    session_token: str = ""
    nonce: str | None = None


class LeaseRequest(Body):
    """A host's daemon takes one execution."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"worker_id": "build-host-1", "lease_s": 60}]})

    worker_id: Name
    lease_s: LeaseSeconds = DEFAULT_LEASE_S


class NextLease(LeaseRequest):
    """A host's daemon takes whatever waits longest for an agent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"agent": "builder", "worker_id": "build-host-1"}]})

    agent: Reference


class LeaseExtension(Body):
    """A worker is still at it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"lease": 1, "lease_s": 60}]})

    lease: LeaseNumber
    lease_s: LeaseSeconds = DEFAULT_LEASE_S


class Release(Body):
    """A worker gives up on this attempt."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"lease": 1, "reason": "exit_code", "detail": "127"}]})

    lease: LeaseNumber
    reason: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$", max_length=64)]
    detail: Annotated[str, Field(max_length=MAX_DETAIL)] | None = None


class OutcomeReport(Body):
    """What came of an execution."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"success": True, "result": "Yes.", "executed_via": "bg", "lease": 1}]}
    )

    success: bool
    result: Any = None
    error: Annotated[str, Field(max_length=10_000)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    executed_via: Literal["live", "bg", "inbox"] | None = None
    lease: LeaseNumber | None = None
