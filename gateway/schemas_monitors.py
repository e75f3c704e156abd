"""Monitors' credentials on the wire: what is asked for, and what a monitor connects to the broker with."""

from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field

from contracts.ids import MONITOR_ID
from contracts.monitors import AGENTS_PER_MONITOR
from gateway.schemas import Body, Reference, refuse
from gateway.schemas_views import Instant, View

_EXAMPLE_KEY: Final = "UAPLHVKTV7DOTZ2CJ6BGRGIX7SQ5DDZCIEDJ7O4CMNE67XKTK5IPUUGG"


def _monitor_id(text: str) -> str:
    if not MONITOR_ID.match(text):
        refuse("invalid_format", "A monitor's id has 1 to 63 of a-z, 0-9 and -.")
    return text


class CredentialsWanted(Body):
    """A monitor's own fresh public key, and the agents whose pushes it is to hear: all of them, or none."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"monitor_id": "mac-mini-1", "public_key": _EXAMPLE_KEY, "agents": ["cue-mac-app@max"]}]
        }
    )

    monitor_id: Annotated[str, AfterValidator(_monitor_id)]
    public_key: Annotated[str, Field(max_length=64, description="A user's nkey: U and 55 characters.")]
    agents: Annotated[list[Reference], Field(min_length=1, max_length=AGENTS_PER_MONITOR)]


class MonitorCredentialsView(View):
    """`jwt` is of use to the holder of the key alone. A monitor had better ask anew after `renew_after_s`.

    `subjects`: what it may subscribe to. `nats_url`: where the broker is, null where the monitor has to know.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "jwt": "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.e30.c2ln",
                    "monitor_id": "mac-mini-1",
                    "expires_at": "2026-05-01T12:10:00Z",
                    "renew_after_s": 400.0,
                    "subjects": ["live.agent_abcdefghij12.>"],
                    "nats_url": "tls://broker.example:4222",
                }
            ]
        }
    )

    jwt: str
    monitor_id: str
    expires_at: Instant
    renew_after_s: float
    subjects: list[str]
    nats_url: str | None
