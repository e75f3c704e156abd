"""The bodies that make, change and fire cues, and the shapes of what is answered."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field

from gateway.schemas import MAX_SUBJECT, MAX_URL, Body, OneLine, Reference, Something
from gateway.schemas_messages import (
    MAX_TTL_S,
    ClaimWindow,
    FallbackWord,
    ModeWord,
    VerificationWord,
)
from gateway.schemas_messages import (
    Instant as InstantIn,
)
from gateway.schemas_views import Instant, MessageView, View

MAX_GRACE_S = 2_592_000
CueNameText: TypeAlias = Annotated[OneLine, Field(min_length=1, max_length=255)]
Description: TypeAlias = Annotated[str, Field(max_length=2_000)]
Payload: TypeAlias = Annotated[
    dict[str, Any], Field(description="What a fire carries, as `metadata.payload`; at most 65 536 bytes of JSON.")
]
Grace: TypeAlias = Annotated[int, Field(ge=60, le=MAX_GRACE_S)]
Transport: TypeAlias = Literal["agent", "webhook", "worker"]
Policy: TypeAlias = Literal["fire_latest", "fire_all", "skip"]
Subject: TypeAlias = Annotated[OneLine, Field(max_length=MAX_SUBJECT)]
Ttl: TypeAlias = Annotated[int, Field(ge=1, le=MAX_TTL_S)]


class ScheduleBody(Body):
    """`cron` with a time zone, `at`, or neither. `at` without an offset is read in the time zone."""

    type: Literal["once", "recurring", "on_demand"] | None = None
    cron: Annotated[str, Field(max_length=255)] | None = None
    at: Annotated[str, Field(max_length=64)] | None = None
    timezone: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class CallbackBody(Body):
    """Where fires are posted, signed as webhooks are."""

    url: Annotated[str, Field(min_length=1, max_length=MAX_URL)]
    method: Literal["POST"] = "POST"
    headers: Annotated[dict[str, str], Field(max_length=0, description="None are sent; `{}` is taken.")] = Field(
        default_factory=dict
    )


class RetryBody(Body):
    """Kept and shown; the channels' own ladders are what is climbed."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    backoff_minutes: Annotated[list[Annotated[int, Field(ge=1, le=1_440)]], Field(max_length=10)] = Field(
        default_factory=lambda: [1, 5, 15]
    )


class OnFailureBody(Body):
    """What a failed fire sets off. No mail is sent: `email` is kept and shown."""

    email: bool = True
    webhook: Annotated[str, Field(min_length=1, max_length=MAX_URL)] | None = None
    to: Reference | None = None
    pause: bool = False


class CueFields(Body):
    """What can be set on a cue, and changed."""

    description: Description | None = None
    schedule: ScheduleBody | None = None
    callback: CallbackBody | None = None
    payload: Payload | None = None
    retry: RetryBody | None = None
    on_failure: OnFailureBody | None = None
    verification: VerificationWord | None = None
    to: Reference | None = None
    delivery_mode: ModeWord | None = None
    live_fallback_mode: FallbackWord | None = None
    claim_window_s: ClaimWindow | None = None
    ttl_s: Ttl | None = None
    subject: Subject | None = None
    message: Something | None = None
    misfire_policy: Policy | None = None
    misfire_grace_s: Grace | None = None


class NewCue(CueFields):
    """A cue. Without a schedule it fires on demand."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "morning-report",
                    "schedule": {"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"},
                    "to": "builder",
                    "message": "Write the morning report.",
                }
            ]
        }
    )

    name: CueNameText
    transport: Transport | None = Field(default=None, description="Follows from `to` and `callback` when absent.")


class CueChange(CueFields):
    """What is named is changed; the rest stays. The transport stays as well."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "paused"}]})

    name: CueNameText | None = None
    status: Literal["active", "paused"] | None = None


class FireWish(Body):
    """A fire on demand; the body may be left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"payload_override": {"month": 3}}]})

    payload_override: Payload | None = None
    merge_strategy: Literal["merge", "replace"] = "merge"
    idempotency_key: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    send_at: InstantIn | None = None
    exit_criteria: Annotated[list[Any], Field(max_length=20)] | None = None


class BulkDeletion(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": ["cue_01jb0000000000000000000000"]}]})

    ids: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=100)]


class ScheduleView(View):
    type: Literal["once", "recurring", "on_demand"]
    cron: str | None
    at: Instant | None
    timezone: str


class CallbackView(View):
    url: str | None
    method: Literal["POST"]
    headers: dict[str, str]


class OnFailureView(View):
    email: bool
    webhook: str | None
    to: str | None
    pause: bool


class FireView(View):
    """One fire a cue remembers. `state` is its execution's end, `refused` where there was none, null while open."""

    id: str
    message_id: str
    scheduled_for: Instant
    triggered_by: Literal["scheduled", "manual_fire"]
    status: Literal["pending", "success", "failed"]
    state: str | None
    error_message: str | None
    ended_at: Instant | None


class CueView(View):
    id: str
    name: str
    description: str | None
    status: Literal["active", "paused", "ended"]
    transport: Transport
    schedule: ScheduleView
    callback: CallbackView
    payload: dict[str, Any]
    retry: dict[str, Any]
    on_failure: OnFailureView
    verification: dict[str, str]
    to: str | None
    delivery_mode: str
    live_fallback_mode: str
    claim_window_s: int | None
    ttl_s: int | None
    subject: str | None
    message: str | None
    misfire_policy: Policy
    misfire_grace_s: int
    next_run: Instant | None
    last_run: Instant | None
    run_count: int
    fired_count: int
    missed_count: int
    missed: list[Instant]
    succeeded_count: int
    failed_count: int
    consecutive_failures: int
    executions: list[FireView]
    warning: str | None
    created_at: Instant
    updated_at: Instant


class CueWithSecrets(CueView):
    """A new cue; the secrets its callback and its failure webhook are signed with are shown once."""

    webhook_secret: str | None = None
    on_failure_webhook_secret: str | None = None


class CuePage(View):
    cues: list[CueView]
    total: int
    limit: int
    offset: int
    has_more: bool


class FiredView(View):
    """The execution of a fire, with its message and trace. `replayed`: it was fired under this key before."""

    id: str
    execution_id: str
    message_id: str
    cue_id: str
    scheduled_for: Instant
    status: str
    triggered_by: Literal["manual_fire"]
    replayed: bool
    message: MessageView


class DeletedCuesView(View):
    deleted: list[str]
    skipped: list[str]
