"""API keys in the shape Mobius' clients know: what is minted, and what is shown of a key."""

from typing import Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from gateway.schemas import Name, refuse
from gateway.schemas_keys import NewKey
from gateway.schemas_messages import Instant as InstantIn
from gateway.schemas_projects import OpenBody
from gateway.schemas_views import Instant, View

KeyScopeWord: TypeAlias = Literal["org", "system"]


class NewApiKey(OpenBody):
    """An API key to mint. Without permissions it may do whatever its project may, or what its service account may."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "worker-1", "permissions": ["mobius.job.claim"]}]}
    )

    name: Name
    project_id: Annotated[str, Field(max_length=64)] | None = Field(default=None, description="One's own when absent.")
    scope: KeyScopeWord = Field(default="org", description="`system` speaks for every project: with an admin key only.")
    permissions: Annotated[list[Name], Field(max_length=64)] | None = Field(
        default=None, description="In Mobius' words or ours; nobody grants what he lacks."
    )
    service_account_id: Annotated[str, Field(max_length=64)] | None = None
    expires_at: InstantIn | None = None

    @model_validator(mode="after")
    def is_of_one_kind(self) -> "NewApiKey":
        limits = (self.permissions, self.expires_at, self.service_account_id)
        if self.scope == "system" and any(limit is not None for limit in limits):
            refuse("field_not_applicable", "A system key has no limits.")
        return self

    def key_for(self, owner: str) -> NewKey:
        """The same for every door."""
        return NewKey(
            owner=owner,
            name=self.name,
            admin=self.scope == "system",
            scopes=self.permissions,
            service_account_id=self.service_account_id,
            expires_at=self.expires_at,
        )


class ApiKeyView(View):
    """`project_id` is null for a system key, `permissions` for a key that may do whatever its project may."""

    id: str
    name: str
    key_prefix: str
    scope: KeyScopeWord
    permissions: list[str] | None
    project_id: str | None
    service_account_id: str | None
    agent_id: str | None
    expires_at: Instant | None
    last_used_at: Instant | None
    created_at: Instant
    updated_at: Instant


class ApiKeyWithText(ApiKeyView):
    """A key with its text, which is shown this once."""

    key: str


class ApiKeyPage(View):
    items: list[ApiKeyView]
    next_cursor: str | None
    has_more: bool
