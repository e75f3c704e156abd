"""The bodies of those who do the work: claims, leases, releases, outcomes, and what they are worth."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import to_json

from contracts.records import JsonObject
from gateway.schemas import MAX_METADATA_BYTES, Body, Metadata, OneLine, Reference, checked_metadata, refuse
from router.verification import EVIDENCE_FIELDS

MIN_LEASE_S, MAX_LEASE_S, DEFAULT_LEASE_S = 10, 900, 60
UNFENCED_LEASE_S: Final = 900
"""How long a worker has that never extends: CueAPI's, whose handlers end after 300 s at the latest."""
MAX_DETAIL = 2_000
MAX_ARTIFACTS_BYTES: Final = 10_240
WORKERS_NOTES: Final = "_cueapi_worker"
"""The one reserved key that CueAPI's worker puts into an outcome's metadata."""

LeaseSeconds: TypeAlias = Annotated[int, Field(ge=MIN_LEASE_S, le=MAX_LEASE_S)]
LeaseNumber: TypeAlias = Annotated[int, Field(ge=1, le=2**53)]
WorkerId: TypeAlias = Annotated[OneLine, Field(min_length=1, max_length=255)]
TaskName: TypeAlias = Annotated[OneLine, Field(min_length=1, max_length=255)]


def _outcome_metadata(value: dict[str, Any]) -> dict[str, Any]:
    checked_metadata({key: each for key, each in value.items() if key != WORKERS_NOTES})
    if len(to_json(value)) > MAX_METADATA_BYTES:
        refuse("too_long", f"The metadata may have {MAX_METADATA_BYTES} bytes of JSON.")
    return value


def _small(value: list[Any]) -> list[Any]:
    if len(to_json(value)) > MAX_ARTIFACTS_BYTES:
        refuse("too_long", f"The artifacts may have {MAX_ARTIFACTS_BYTES} bytes of JSON.")
    return value


class LiveClaim(Body):
    """A live session claims what was pushed to it. An absent token is answered like a wrong one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"session_token": "01jx5k9v3m7q2w8r4t6y0zacde"}]})

    exec_id: str | None = None
    session_token: str = ""
    nonce: str | None = None


class LeaseRequest(Body):
    """A worker takes one execution.

    Without `lease_s` it is taken for a worker that knows no leases: it has 900 s, and reports without a number.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"worker_id": "build-host-1", "lease_s": 60}]})

    worker_id: WorkerId
    lease_s: LeaseSeconds | None = None

    @property
    def is_fenced(self) -> bool:
        return self.lease_s is not None


class NextLease(LeaseRequest):
    """A worker takes whatever waits longest: for an agent, for a task, for both, or at any agent of its owner."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"agent": "builder", "worker_id": "build-host-1", "lease_s": 60}]}
    )

    agent: Reference | None = None
    task: TaskName | None = Field(default=None, description="What `metadata.task` of the message has to be.")

    @property
    def is_bare(self) -> bool:
        """Nothing but a worker's name: the peer's form, answered in its way."""
        return self.agent is None and self.task is None and self.lease_s is None


class LeaseExtension(Body):
    """A worker is still at it. Without `lease` the present one is meant, if `X-Worker-Id` names who has it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"lease": 1, "lease_s": 60}]})

    lease: LeaseNumber | None = None
    lease_s: LeaseSeconds | None = None

    @property
    def seconds(self) -> int:
        return self.lease_s or (UNFENCED_LEASE_S if self.lease is None else DEFAULT_LEASE_S)


class InContext(Body):
    """The turn or the program has taken the message. `lease` as in the outcome: a live claim has none."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"lease": 1}]})

    lease: LeaseNumber | None = None


class Release(Body):
    """A worker gives up on this attempt."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"lease": 1, "reason": "exit_code", "detail": "127"}]})

    lease: LeaseNumber
    reason: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$", max_length=64)]
    detail: Annotated[str, Field(max_length=MAX_DETAIL)] | None = None


class _WithEvidence(Body):
    """What shows that something was done."""

    external_id: Annotated[str, Field(max_length=500)] | None = None
    result_url: Annotated[str, Field(max_length=2_000, pattern=r"^https?://[^\s/?#]\S*$")] | None = None
    result_ref: Annotated[str, Field(max_length=500)] | None = None
    result_type: Annotated[str, Field(max_length=100)] | None = None
    summary: Annotated[str, Field(max_length=500)] | None = None
    artifacts: Annotated[list[Any], Field(max_length=100), AfterValidator(_small)] | None = None

    def evidence(self) -> JsonObject:
        """The fields that were sent with a value."""
        values = {name: getattr(self, name) for name in EVIDENCE_FIELDS}
        return {name: value for name, value in values.items() if value is not None}


class OutcomeReport(_WithEvidence):
    """What came of an execution."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"success": True, "result": "Yes.", "executed_via": "bg", "lease": 1}]}
    )

    success: bool
    result: Any = None
    error: Annotated[str, Field(max_length=10_000)] | None = None
    metadata: Annotated[dict[str, Any], AfterValidator(_outcome_metadata)] = Field(default_factory=dict)
    executed_via: Literal["live", "bg", "inbox"] | None = None
    lease: LeaseNumber | None = None


class MoreEvidence(_WithEvidence):
    """More evidence for an outcome that is recorded."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"result_url": "https://example.com/runs/7"}]})

    metadata: Metadata | None = None

    def evidence(self) -> JsonObject:
        return {**super().evidence(), **({"metadata": self.metadata} if self.metadata is not None else {})}


class Verdict(Body):
    """Whether an outcome holds."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"valid": True, "reason": "Seen in staging."}]})

    valid: bool = True
    reason: Annotated[str, Field(max_length=2_000)] | None = None
