"""The bodies about guards, asked and answered."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from contracts.words import Gate, Reason
from gateway.schemas import Body, Reference, refuse
from gateway.schemas_views import Instant, View

_THREAD = r"^msg_[0-9a-z]{26}$"


class GuardReset(Body):
    """Which open guards to close: those that name all of what is given."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"sender": "planner", "recipient": "cue-mac-app"}]})

    sender: Reference | None = None
    recipient: Reference | None = None
    thread: Annotated[str, Field(pattern=_THREAD)] | None = None

    @model_validator(mode="after")
    def names_something(self) -> "GuardReset":
        if self.sender is None and self.recipient is None and self.thread is None:
            refuse("required", "Name a sender, a recipient or a thread.")
        return self


class GuardView(View):
    """A guard that refuses; `half_open`: it lets the next message through to see."""

    gate: Gate
    reason: Reason
    state: Literal["open", "half_open"]
    sender: str | None
    recipient: str | None
    thread: str | None
    retry_at: Instant


class GuardPage(View):
    guards: list[GuardView]


class ResetView(View):
    """How many guards were closed."""

    reset: int
