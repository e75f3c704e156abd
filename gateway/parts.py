"""What one gateway is made of: the ports, the router's service, and the rooms built on them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from contracts.clock import Clock, Ids
from gateway.agents import Agents
from gateway.api_keys import ApiKeys
from gateway.auth import Authenticator
from gateway.directory import Directory
from gateway.holds import Holds
from gateway.live_sessions import LiveSessionBook
from gateway.metrics import Metrics
from gateway.ports import Announcer, Beats, DirectoryStore, Probe, Queries, Watch
from gateway.waiting import Waiting
from router.service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything `create_app` needs. `check_url` raises `Invalid` for a URL that may not become a webhook."""

    clock: Clock
    ids: Ids
    store: DirectoryStore
    service: Service
    queries: Queries
    beats: Beats
    watch: Watch
    announcer: Announcer
    probe: Probe
    check_url: Callable[[str], None]
    metrics: Metrics = field(default_factory=Metrics)


class Rooms:
    """The gateway's own rooms, made of the parts once; every endpoint finds them as `request.app.state.rooms`."""

    def __init__(self, parts: Parts) -> None:
        store, clock, ids = parts.store, parts.clock, parts.ids
        self.parts = parts
        self.authenticator = Authenticator(store, clock)
        self.directory = Directory(store)
        self.holds = Holds()
        self.waiting = Waiting(service=parts.service, watch=parts.watch, clock=clock, holds=self.holds)
        self.agents = Agents(store=store, clock=clock, ids=ids, check_url=parts.check_url)
        self.keys = ApiKeys(store=store, authenticator=self.authenticator, clock=clock, ids=ids)
        self.sessions = LiveSessionBook(store=store, beats=parts.beats, announcer=parts.announcer, clock=clock, ids=ids)


def rooms_of(request: Request) -> Rooms:
    rooms: Any = request.app.state.rooms
    assert isinstance(rooms, Rooms)
    return rooms
