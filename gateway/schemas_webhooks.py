"""The bodies and answers around an agent's webhook: its settings, its secret, its health, its attempts."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from gateway.schemas import Body
from gateway.schemas_views import Instant, View

MAX_OVERLAP_S = 7 * 86_400
Signature = Literal["v1", "v1a"]


class WebhookChange(Body):
    """How fast an agent's receiver may be posted to, by each router. What is absent stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"max_in_flight": 8, "per_s": 50}]})

    max_in_flight: Annotated[int, Field(ge=1, le=32)] = 4
    per_s: Annotated[float, Field(ge=0.1, le=10_000, allow_inf_nan=False)] | None = Field(
        default=None, description="Null: as fast as it answers."
    )


class Rotation(Body):
    """Another secret, and for how long the one before it goes on signing beside it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_s": 86400, "signature": "v1a"}]})

    overlap_s: Annotated[int, Field(ge=0, le=MAX_OVERLAP_S)] = 86_400
    signature: Signature | None = Field(default=None, description="Absent: the kind there is.")


class WebhookView(View):
    """An agent's webhook. `public_key` verifies `v1a`; `failing_since` is when its receiver began to take nothing."""

    agent_id: str
    url: str | None
    signature: Signature | None
    public_key: str | None
    previous_secret_until: Instant | None
    max_in_flight: int
    per_s: float | None
    failing_since: Instant | None
    disabled_at: Instant | None
    disabled_reason: str | None


class RotatedView(WebhookView):
    """`webhook_secret` is shown this once; null with `v1a`, whose private key never leaves the server."""

    webhook_secret: str | None


class PingView(View):
    """What the receiver said to a test."""

    delivered: bool
    webhook_id: str
    status: int | None
    latency_ms: int
    error: str | None
    response: str


class AttemptView(View):
    """One attempt. `status` null: nobody answered, and `error` says why; `response` is the beginning of the answer."""

    number: int
    holder: str
    at: Instant
    ended_at: Instant | None
    succeeded: bool | None
    status: int | None
    latency_ms: int | None
    error: str | None
    response: str | None
    retry_at: Instant | None


class AttemptPage(View):
    execution_id: str
    message_id: str
    state: str
    attempts: list[AttemptView]


class DeliveryView(View):
    """A webhook as it is posted, signed anew: the body as text, and the headers to verify it by."""

    execution_id: str
    message_id: str
    body: str
    headers: dict[str, str]
