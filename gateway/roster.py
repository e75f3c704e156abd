"""The roster: an owner's agents and whether they are there, as a text that stays the same while nothing has changed.

Made to be put into prompts: entries are ordered by slug, times are told in few wide words, and the ETag covers every
word of them. What was asked before gets the very same bytes until an entry changes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from contracts.clock import Clock
from contracts.freshness import host_name
from contracts.records import Agent, JsonObject, LiveSession
from contracts.words import Channel
from gateway.agents import Agents
from gateway.directory import Directory
from gateway.etags import weak_etag
from gateway.ports import Beats
from gateway.presence import Presence, presence_of, signs_of_life
from router.explain import instant

MAX_AGENTS: Final = 500
MAX_DESCRIPTION: Final = 500
MAX_REMEMBERED: Final = 10_000


class Rosters:
    """Rosters of owners. Remembers of each reader's last one when it first read like that."""

    def __init__(self, *, agents: Agents, directory: Directory, beats: Beats, clock: Clock) -> None:
        self._agents = agents
        self._directory = directory
        self._beats = beats
        self._clock = clock
        self._since: dict[str, tuple[str, datetime]] = {}

    async def of_owner(self, owner: str, among: Sequence[Agent] | None = None) -> JsonObject:
        """The first `MAX_AGENTS` agents by slug, of all or of these. Raises `Unavailable` when nobody can say."""
        agents, more = await self._agents.of_owner(owner, after="", limit=MAX_AGENTS, among=among)
        signs = await self.signs_of(agents)
        now = self._clock.now()
        entries = [roster_entry(agent, presence_of(agent, signs[agent.id], now)) for agent in agents]
        etag = weak_etag(entries)
        reader = owner if among is None else f"{owner}:{_digest(among)}"
        since = self._reads_like_that_since(reader, etag, now)
        return {"generated_at": instant(since), "etag": etag, "agents": entries, "truncated": more is not None}

    async def signs_of(self, agents: Sequence[Agent]) -> Mapping[str, Sequence[datetime | None]]:
        """When the sessions and the host of each agent were last heard of, in one question."""
        sessions = {agent.id: await self._directory.attached(agent.id) for agent in agents}
        wanted = [name for agent in agents for name in _names_of(agent, sessions[agent.id])]
        signs, now = await self._beats.signs(wanted), self._clock.now()
        return {agent.id: signs_of_life(agent, sessions[agent.id], signs, now) for agent in agents}

    def _reads_like_that_since(self, reader: str, etag: str, now: datetime) -> datetime:
        known = self._since.get(reader)
        if known is not None and known[0] == etag:
            return known[1]
        if len(self._since) >= MAX_REMEMBERED:
            self._since.clear()
        self._since[reader] = (etag, now)
        return now


def _digest(agents: Sequence[Agent]) -> str:
    """What stands for these agents, however many they are."""
    return hashlib.blake2b(",".join(agent.id for agent in agents).encode(), digest_size=16).hexdigest()


def roster_entry(agent: Agent, presence: Presence) -> JsonObject:
    """One agent's lines. `preferred_contact` is the roster's own word: can the agent be talked to at once?"""
    return {
        "name": agent.slug,
        "slug": agent.slug,
        "id": agent.id,
        "address": agent.address,
        "display_name": agent.profile.display_name or agent.slug,
        "description": description_of(agent),
        "online": presence.is_online,
        "derived_status": presence.status,
        "status": presence.status,
        "bucketed_seen": presence.seen,
        "last_seen_relative": presence.seen,
        "preferred_contact": _work_style(agent),
        "preferred_channel": agent.preferred_contact.value if agent.preferred_contact else None,
        "capabilities": [channel.value for channel in agent.delivery_capabilities],
        "tools": list(agent.profile.tools),
    }


def description_of(agent: Agent) -> str | None:
    """What the agent is for: its description, its metadata's `description`, or its specialization."""
    stated = agent.description or agent.metadata.get("description")
    text = stated if isinstance(stated, str) and stated else agent.profile.specialization
    return text[:MAX_DESCRIPTION] if text else None


def _work_style(agent: Agent) -> str:
    """As the agent says; else sync when something can be pushed to it, async when it looks by itself."""
    if agent.profile.work_style is not None:
        return agent.profile.work_style.value
    is_pushed = any(channel is not Channel.INBOX for channel in agent.delivery_capabilities)
    return "sync" if is_pushed else "async"


def _names_of(agent: Agent, sessions: Sequence[LiveSession]) -> list[str]:
    return [*(session.id for session in sessions), host_name(agent.id)]
