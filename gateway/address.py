"""The three ways to write an agent's address, and how each is read. Pure.

    agent_0123456789ab    the agent itself; agt_ is read as the same
    slug@owner            by name, in anybody's namespace
    slug                  by name, in the caller's own

Whether such an agent exists, and may be addressed, is the directory's to say.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from contracts.errors import Invalid
from contracts.ids import OWNER, SLUG, canonical_agent_id

# Words that stand for something else in a path or a sentence: nobody may take them as a name.
RESERVED_SLUGS: Final = frozenset(
    {
        *("admin", "api", "auth", "billing", "postroom", "root", "security", "support", "system"),
        *("all", "any", "everyone", "me", "nobody", "null", "self", "undefined"),
        *("agents", "attachments", "claimable", "console", "executions", "inbox", "keys", "messages", "metrics"),
        *("presence", "reconcile-attachments", "roster", "sent", "sessions", "route"),
        *("auto", "background", "bg", "live", "live-sessions", "webhook", "webhooks"),
    }
)


@dataclass(frozen=True, slots=True)
class ById:
    """An agent by its id, in the canonical spelling."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class BySlug:
    """An agent by its name. `owner` None means the caller's own."""

    slug: str
    owner: str | None = None


Address: TypeAlias = ById | BySlug


def parse_address(text: str, *, field: str = "to") -> Address:
    """Read an address; raises `Invalid` (`invalid_address`), naming `field` and never the text."""
    agent_id = canonical_agent_id(text)
    if agent_id is not None:
        return ById(agent_id)
    slug, at, owner = text.partition("@")
    if SLUG.match(slug) and (not at or OWNER.match(owner)):
        return BySlug(slug, owner if at else None)
    raise Invalid("invalid_address", "Write an agent as agent_…, slug@owner or slug.", field=field)


def write_address(address: Address) -> str:
    match address:
        case ById(agent_id):
            return agent_id
        case BySlug(slug, None):
            return slug
        case BySlug(slug, owner):
            return f"{slug}@{owner}"


def refuse_reserved(slug: str) -> None:
    """Raise `Invalid` (`reserved_slug`) when nobody may take this name."""
    if slug in RESERVED_SLUGS:
        raise Invalid("reserved_slug", "This slug is reserved.", field="slug")
