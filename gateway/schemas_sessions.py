"""The bodies and answers of sessions, in the shape Mobius' clients know, and of one beat for many of them."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from contracts.freshness import OVERDUE_S, TERMINAL_S
from contracts.records import LIVE_TRANSPORT
from gateway.schemas import Body, Metadata, Name, refuse
from gateway.schemas_agents import BeatAge
from gateway.schemas_projects import OpenBody
from gateway.schemas_views import Instant, View

MAX_SESSIONS_PER_BEAT: Final = 1_000
StatusWord: TypeAlias = Literal["connected", "stale", "disconnected"]


def _no_live(transport: str) -> str:
    if transport == LIVE_TRANSPORT:
        refuse("reserved_transport", "A session that takes pushes is attached at /v1/agents/{ref}/live-sessions.")
    return transport


Transport: TypeAlias = Annotated[
    Name, AfterValidator(_no_live), Field(description="The worker's own word.", examples=["sse", "polling"])
]


class Register(OpenBody):
    """A session to register: a worker says that it is there, and how long it may be silent."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"transport": "sse", "metadata": {"hostname": "worker-1"}}]}
    )

    transport: Transport
    metadata: Metadata = Field(default_factory=dict)
    overdue_after_seconds: Annotated[int, Field(ge=5, le=3_600)] = OVERDUE_S
    stale_after_seconds: Annotated[int, Field(ge=6, le=86_400)] = TERMINAL_S

    @model_validator(mode="after")
    def is_overdue_before_it_is_stale(self) -> "Register":
        if self.stale_after_seconds <= self.overdue_after_seconds:
            refuse("out_of_range", "stale_after_seconds has to be greater than overdue_after_seconds.")
        return self


class SessionAge(Body):
    """One session that lives, or lived so many seconds ago."""

    session_id: Annotated[str, Field(max_length=64)]
    age_s: BeatAge = 0.0


class ManyBeats(Body):
    """One beat for many sessions."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"sessions": [{"session_id": "sess_01k5z3w8p2c4d6f8h0j2m4n6q8", "age_s": 0}]}]}
    )

    sessions: Annotated[list[SessionAge], Field(min_length=1, max_length=MAX_SESSIONS_PER_BEAT)]


class WorkerSessionView(View):
    """A session. It beats within `overdue_after_seconds` and ends for good after `stale_after_seconds` of silence.

    `next_beat_after_seconds`: when it had better beat next; null once it has ended.
    """

    id: str
    agent_id: str
    status: StatusWord
    transport: str
    metadata: dict[str, Any]
    connected_at: Instant
    last_seen_at: Instant | None
    disconnected_at: Instant | None
    created_at: Instant
    updated_at: Instant
    overdue: bool
    heartbeat_interval_seconds: float
    overdue_after_seconds: int
    stale_after_seconds: int
    next_beat_after_seconds: float | None


class WorkerSessionPage(View):
    items: list[WorkerSessionView]
    next_cursor: str | None
    has_more: bool


class BeatView(View):
    """`unknown`: absent, forgotten, or somebody else's."""

    session_id: str
    status: Literal["connected", "stale", "disconnected", "unknown"]
    last_seen_at: Instant | None


class BeatsView(View):
    """What came of each beat, in the order in which they were sent, and when all of them had better beat next."""

    sessions: list[BeatView]
    next_beat_after_seconds: float | None
