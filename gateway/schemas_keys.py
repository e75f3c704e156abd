"""API keys on the wire: what is minted and rotated, and what is shown of a key."""

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from gateway.schemas import Body, Name, OneLine, Reference, refuse
from gateway.schemas_agents import Slug
from gateway.schemas_messages import Instant as InstantIn
from gateway.schemas_views import Instant, PrincipalView, View

LONGEST_LIFE_S = 10 * 366 * 86_400
MAX_OVERLAP_S = 7 * 86_400


class NewKey(Body):
    """An API key to mint. Without limits it may do whatever its owner may."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "laptop"},
                {"name": "worker", "agent": "builder", "scopes": ["executions:claim"], "expires_in_s": 86_400},
            ]
        }
    )

    owner: Slug | None = None
    name: Annotated[OneLine, Field(max_length=64)] = ""
    admin: bool = False
    scopes: Annotated[list[Name], Field(max_length=64)] | None = Field(
        default=None, description="What it is limited to, in our words or Mobius'; an empty list is nothing."
    )
    expires_at: InstantIn | None = None
    expires_in_s: Annotated[int, Field(ge=1, le=LONGEST_LIFE_S)] | None = None
    agent: Reference | None = Field(default=None, description="It acts as this agent and as nobody else.")
    service_account_id: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="It serves the agents this account backs, and does what its scopes add."
    )

    @model_validator(mode="after")
    def is_of_one_kind(self) -> "NewKey":
        limits = (self.scopes, self.expires_at, self.expires_in_s, self.agent, self.service_account_id)
        if self.admin and any(limit is not None for limit in limits):
            refuse("field_not_applicable", "An admin key has no limits.")
        if self.expires_at is not None and self.expires_in_s is not None:
            refuse("field_not_applicable", "Send expires_at or expires_in_s.")
        if self.agent is not None and self.service_account_id is not None:
            refuse("field_not_applicable", "A key is bound to an agent or belongs to a service account.")
        return self


class KeyRotation(Body):
    """A successor, and for how long the key before it counts beside it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_s": 3_600}]})

    overlap_s: Annotated[int, Field(ge=0, le=MAX_OVERLAP_S)] = 86_400


class KeyView(PrincipalView):
    """`last_used_at`: to the minute, and null for a key nobody has used since the freshness store was emptied."""

    name: str
    created_at: Instant
    expires_at: Instant | None
    last_used_at: Instant | None = None


class KeyWithText(KeyView):
    key: str


class RotatedKeyView(KeyWithText):
    """The successor, and until when the key before it counts."""

    previous_key_id: str
    previous_expires_at: Instant


class KeyPage(View):
    keys: list[KeyView]
