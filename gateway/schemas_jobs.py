"""The bodies and answers of workers that claim jobs below a project, in the shape Mobius' clients know."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import to_json

from contracts.errors import Malformed
from gateway.jobs import CONCURRENCY
from gateway.schemas import MAX_TEXT, OneLine, refuse
from gateway.schemas_executions import LeaseNumber, WorkerId
from gateway.schemas_projects import OpenBody
from gateway.schemas_selection import Where
from gateway.schemas_views import Instant, View

MAX_WAIT_S: Final = 30
MAX_EVENTS: Final = 100
MAX_EVENT_BYTES: Final = 16_384
RESERVED_EVENTS: Final = ("mobius.", "postroom.")

QueueName: TypeAlias = Annotated[OneLine, Field(min_length=1, max_length=128)]
ActionName: TypeAlias = Annotated[OneLine, Field(min_length=1, max_length=255)]


def _not_reserved(kind: str) -> str:
    if kind.startswith(RESERVED_EVENTS):
        refuse("reserved_event", "An event's type may not begin like ours.")
    return kind


class JobClaimRequest(OpenBody):
    """A worker asks for one job: of one agent, of those that fit, or of any it may work for."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"worker_id": "worker-1", "agent_id": "doc-summarizer", "wait_seconds": 0}]}
    )

    worker_id: WorkerId
    agent_id: Annotated[str, Field(max_length=128)] | None = None
    agent_session_id: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="A connected session of that agent; told again with the job."
    )
    worker_name: Annotated[OneLine, Field(max_length=255)] | None = None
    worker_version: Annotated[OneLine, Field(max_length=255)] | None = None
    queues: Annotated[list[QueueName], Field(max_length=100)] | None = Field(
        default=None, description="What `metadata.queue` of the message has to be; without one it is `default`."
    )
    actions: Annotated[list[ActionName], Field(max_length=100)] | None = Field(
        default=None, description="What `metadata.action`, or else `metadata.task`, of the message has to be."
    )
    where: Where | None = Field(default=None, description="Agents by kind and capability, as `to.where` names them.")
    concurrency_limit: Annotated[int, Field(ge=1, le=1_000)] | None = Field(
        default=None, description=f"How many jobs the worker has in hand at most; {CONCURRENCY} if it does not say."
    )
    wait_seconds: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description=f"How long to wait for a job, {MAX_WAIT_S} at most; more counts as that."
    )

    @property
    def wait_s(self) -> int:
        return min(self.wait_seconds or 0, MAX_WAIT_S)


class JobFence(OpenBody):
    """Which attempt of a job speaks: the worker that claimed it, and the number it was given."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"worker_id": "worker-1", "attempt": 1}]})

    worker_id: WorkerId
    attempt: LeaseNumber


class JobCompletion(JobFence):
    """What came of a job. `result_b64` are the bytes of its output; JSON is kept as what it says."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"worker_id": "worker-1", "attempt": 1, "status": "completed", "result_b64": "eyJwYWdlcyI6IDN9"}
            ]
        }
    )

    status: Literal["completed", "failed"]
    result_b64: Annotated[str, Field(max_length=MAX_TEXT * 4 // 3 + 4)] | None = None
    error_type: Annotated[str, Field(max_length=255)] | None = None
    error_message: Annotated[str, Field(max_length=10_000)] | None = None


class JobEvent(OpenBody):
    """Something a worker tells of a job while it is at it."""

    type: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", max_length=64), AfterValidator(_not_reserved)]
    payload: dict[str, Any] = Field(default_factory=dict)


class JobEvents(JobFence):
    """Several of them, all of which are taken, or none."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"worker_id": "worker-1", "attempt": 1, "events": [{"type": "progress", "payload": {"percent": 40}}]}
            ]
        }
    )

    events: Annotated[list[JobEvent], Field(min_length=1, max_length=MAX_EVENTS)]

    def refuse_too_large(self) -> None:
        """Raise `Malformed` (`event_too_large`) for a payload of more than 16 KiB of JSON."""
        if any(len(to_json(event.payload)) > MAX_EVENT_BYTES for event in self.events):
            message = f"An event's payload may have {MAX_EVENT_BYTES} bytes of JSON."
            raise Malformed("event_too_large", message, status=413)


class JobView(View):
    """A job as it was claimed. `attempt` is the fence for everything said of it from now on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "job_id": "exec_01k5z3w8p2c4d6f8h0j2m4n6q8",
                    "run_id": "msg_01k5z3w8p2c4d6f8h0j2m4n6q8",
                    "workflow_name": "Weekly report",
                    "step_name": "doc-summarizer",
                    "action": "summarize",
                    "queue": "default",
                    "attempt": 1,
                    "max_attempts": 3,
                    "parameters": {"month": 3},
                    "agent_id": "agent_4f7c2m9x1b3d",
                    "agent_session_id": None,
                    "heartbeat_interval_seconds": 30,
                    "lease_expires_at": "2026-05-04T10:01:30.000Z",
                }
            ]
        }
    )

    job_id: str
    run_id: str
    workflow_name: str
    step_name: str
    action: str
    queue: str
    attempt: int
    max_attempts: int
    parameters: dict[str, Any]
    agent_id: str
    agent_session_id: str | None
    heartbeat_interval_seconds: int
    lease_expires_at: Instant


class JobDirectives(View):
    should_cancel: bool


class JobHeartbeatView(View):
    """The lease is as long as ever again. With `should_cancel` nobody waits for the outcome any more."""

    ok: Literal[True]
    directives: JobDirectives
    lease_expires_at: Instant


class ProjectWorkerView(View):
    id: str
    name: str
    version: str | None
    last_seen_at: Instant
    capabilities: list[str]
    stale: bool


class ProjectWorkerPage(View):
    items: list[ProjectWorkerView]
