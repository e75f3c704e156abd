"""The bodies and answers of service accounts and of agents below a project, in the shape Mobius' clients know.

What a body says beyond the fields named here is passed over, as that shape allows, and stored nowhere.
"""

from typing import Annotated, Any, Final, Literal, NoReturn, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field

from gateway.schemas import Body, Metadata, OneLine, refuse
from gateway.schemas_agents import AgentChange, Description, FreeMap, Kind, NewAgent, Slug
from gateway.schemas_views import ChannelWord, Instant, View

AgentStatusWord: TypeAlias = Literal["active", "inactive"]
AccountStatusWord: TypeAlias = Literal["active", "disabled"]
AccountName: TypeAlias = Annotated[OneLine, Field(min_length=1, max_length=63, examples=["summarizers"])]
Title: TypeAlias = Annotated[OneLine, Field(min_length=1, max_length=255)]
UserId: TypeAlias = Annotated[OneLine, Field(min_length=1, max_length=128)]


def _for_life(value: object) -> NoReturn:
    refuse("immutable_field", "This stays as it was when the thing was made.")


def _no_roles(value: object) -> object:
    return value if value is None else refuse("roles_not_supported", "There are no roles: a key has permissions.")


Lasting: TypeAlias = Annotated[Any, BeforeValidator(_for_life), Field(description="Stays for life: refused.")]
Role: TypeAlias = Annotated[None, BeforeValidator(_no_roles), Field(description="There are no roles: refused.")]
_NOTHING: Final[Any] = None


class OpenBody(Body):
    """A body whose further fields are passed over."""

    model_config = ConfigDict(extra="ignore")


class NewServiceAccount(OpenBody):
    """A service account to make. Its name is borne once in its project, and for life."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "summarizers"}]})

    name: AccountName
    display_name: Title | None = None
    description: Description | None = None
    owner_user_id: UserId | None = Field(default=None, description="Kept and shown, and nothing more.")
    metadata: Metadata = Field(default_factory=dict)
    role_id: Role = None
    role_name: Role = None


class ServiceAccountChange(OpenBody):
    """What to change of a service account; what is absent stays. Null clears a text. `metadata` is replaced whole."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "disabled"}]})

    display_name: Title | None = None
    description: Description | None = None
    status: AccountStatusWord = "active"
    owner_user_id: UserId | None = None
    metadata: Metadata = Field(default_factory=dict)
    name: Lasting = _NOTHING


class NewProjectAgent(OpenBody):
    """An agent to make in a project. Its name is its address there: `name@project`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "service_account_id": "sa_01k5z3w8p2c4d6f8h0j2m4n6q8",
                    "name": "doc-summarizer",
                    "kind": "llm",
                    "capabilities": {"model": "small-1", "max_tokens": 4096},
                }
            ]
        }
    )

    service_account_id: Annotated[str, Field(max_length=64)]
    name: Slug
    display_name: Title | None = None
    description: Description | None = None
    kind: Kind | None = None
    capabilities: FreeMap | None = None
    config: FreeMap | None = None

    def agent_for(self, owner: str) -> NewAgent:
        """The same for every door: it takes background work and has an inbox, so that whatever is sent waits for it."""
        return NewAgent(
            slug=self.name,
            owner=owner,
            service_account_id=self.service_account_id,
            display_name=self.display_name,
            description=self.description,
            kind=self.kind,
            capabilities=self.capabilities or {},
            config=self.config or {},
            delivery_capabilities=["bg", "inbox"],
            preferred_contact="bg",
        )


class ProjectAgentChange(OpenBody):
    """What to change of an agent; what is absent stays. Null clears a text or a map; a map is replaced whole."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "inactive"}]})

    display_name: Title | None = None
    description: Description | None = None
    kind: Kind | None = None
    capabilities: FreeMap | None = None
    config: FreeMap | None = None
    status: AgentStatusWord = "active"
    name: Lasting = _NOTHING
    service_account_id: Lasting = _NOTHING

    def change(self) -> AgentChange:
        """The same for every door."""
        named: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        for name in {"capabilities", "config"} & named.keys():
            named[name] = named[name] or {}
        return AgentChange(**named)


class ServiceAccountView(View):
    id: str
    name: str
    display_name: str
    description: str | None
    status: AccountStatusWord
    owner_user_id: str | None
    metadata: dict[str, Any]
    created_at: Instant
    updated_at: Instant


class ServiceAccountPage(View):
    items: list[ServiceAccountView]
    next_cursor: str | None
    has_more: bool


class ProjectAgentView(View):
    """`service_account_id` is empty for an agent that was made without one at another door."""

    id: str
    service_account_id: str
    name: str
    display_name: str
    description: str | None
    kind: str | None
    capabilities: dict[str, Any]
    config: dict[str, Any]
    status: AgentStatusWord
    presence: Literal["online", "stale", "offline"]
    address: str
    delivery_capabilities: list[ChannelWord]
    created_at: Instant
    updated_at: Instant


class ProjectAgentPage(View):
    """A page may be short and yet have more behind it: filters without an index look at so many agents at a time."""

    items: list[ProjectAgentView]
    next_cursor: str | None
    has_more: bool
