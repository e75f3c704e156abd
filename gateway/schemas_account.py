"""The bodies and answers around an account: workers, keys renewed, usage, registration, and what this server is."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from gateway.schemas import Body, OneLine
from gateway.schemas_executions import TaskName, WorkerId
from gateway.schemas_views import Instant, PrincipalView, View

EMAIL_PATTERN = r"^[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){1,8}$"


class WorkerBeat(Body):
    """A worker's sign of life; `handlers` are the tasks it knows, absent leaves what it said before."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"worker_id": "build-host-1", "handlers": ["report"]}]})

    worker_id: WorkerId
    handlers: Annotated[list[TaskName], Field(max_length=100)] | None = None


class NewAccount(Body):
    """Somebody who wants an owner's name and a key."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"email": "max@example.com"}]})

    email: Annotated[OneLine, Field(max_length=254, pattern=EMAIL_PATTERN)]


class AcknowledgedView(View):
    acknowledged: bool
    server_time: Instant


class WorkerView(View):
    worker_id: str
    last_heartbeat: Instant
    seconds_since_heartbeat: int
    heartbeat_status: Literal["active", "stale", "dead"]
    handlers: list[str]
    registered_since: Instant


class WorkerPage(View):
    workers: list[WorkerView]
    total: int


class AccountView(PrincipalView):
    """Who a key or a token speaks for, and what it is. What there is no limit of here is null.

    `email`, `active_cues` and `executions_this_month` are null for a key that may not read its owner's usage.
    """

    kind: Literal["key", "agent", "service_account", "token"]
    email: str | None
    plan: str
    slug: str
    api_key_prefix: str
    active_cues: int | None
    active_cue_limit: int | None
    executions_this_month: int | None
    monthly_execution_limit: int | None
    rate_limit_per_minute: int | None
    has_webhook_secret: bool


class KeyHintView(View):
    """The key the request was made with, by its beginning; its text was shown when it was minted."""

    api_key: None
    prefix: str
    message: str


class NewKeyView(View):
    """The key that replaces the one the request was made with; shown once."""

    api_key: str
    key_id: str
    previous_key_revoked: bool


class WebhookSecretView(View):
    webhook_secret: str


class NewWebhookSecretView(WebhookSecretView):
    previous_secret_revoked: bool


class RegisteredView(View):
    api_key: str
    email: str
    owner: str


class _Meter(View):
    used: int
    limit: int | None
    remaining: int | None
    percent_used: float


class CuesMeter(_Meter):
    active: int


class ExecutionsMeter(_Meter):
    percentage: float
    projected_month_end: int | None
    will_exceed_limit: bool


class PeriodView(View):
    start: Instant
    end: Instant
    days_remaining: int


class MonthView(View):
    """A calendar month (UTC), and how many messages were accepted for an owner's agents in it."""

    month: Annotated[str, Field(pattern=r"^\d{4}-\d{2}$")]
    received: int


class MessagesOnRecord(View):
    """What an owner's agents received, by where it stands now and by the month of its acceptance."""

    on_record: int
    open: int
    ended: int
    by_state: dict[str, int]
    by_month: list[MonthView]
    earlier: int


class OutcomesView(View):
    reported: int
    succeeded: int | None
    failed: int | None


class RateView(View):
    requests_per_minute: int | None
    current_usage: int | None


class UsageView(View):
    plan: str
    billing_period: PeriodView
    period: PeriodView
    messages: MessagesOnRecord
    cues: CuesMeter
    executions: ExecutionsMeter
    outcomes: OutcomesView
    rate_limit: RateView
    upgrade_url: str | None


class AuthenticationPaths(View):
    per_user_api_key: bool
    internal_token_with_on_behalf_of: bool


class InfoView(View):
    name: str
    version: str
    authorization_backend: str
    authentication_paths: AuthenticationPaths
    disabled_primitives: list[str]


class LivelinessView(View):
    status: Literal["healthy", "degraded"]
    services: dict[str, str]


class StatusView(View):
    status: Literal["up", "down"]
    reason: str = ""
