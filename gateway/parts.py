"""What one gateway is made of: the ports, the router's service, and the rooms built on them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from contracts.clock import Clock, Ids
from gateway.accounts import Accounts
from gateway.agent_search import AgentSearches
from gateway.agents import Agents
from gateway.api_keys import ApiKeys
from gateway.auth import Authenticator, Tokens
from gateway.candidates import Candidates
from gateway.claimable import Claimables
from gateway.conversation import Conversation
from gateway.cues import CueBook
from gateway.dead_letters import DeadLetters
from gateway.directory import Directory
from gateway.echo_trials import EchoTrials
from gateway.echoes import Echoes, EchoSettings
from gateway.grants import Grants
from gateway.guard_desk import GuardDesk
from gateway.guard_trips import GuardTrips
from gateway.holds import Holds
from gateway.intake import Intake
from gateway.job_desk import JobDesk
from gateway.limits import LimitLayers, LimitSettings
from gateway.live_sessions import LiveSessionBook
from gateway.metrics import Metrics
from gateway.monitor_credentials import MonitorCredentials, MonitorSettings
from gateway.namespaces import Namespaces
from gateway.notices import Notices
from gateway.ports import (
    Announcer,
    Beats,
    DirectoryStore,
    EchoPushes,
    GuardBook,
    HeldJobs,
    HighPriorities,
    KeyUses,
    MonitorSigner,
    Probe,
    Queries,
    RateLimits,
    Watch,
    WebhookDoor,
    Workers,
)
from gateway.project_agents import ProjectAgents
from gateway.redrives import RedriveBook
from gateway.roster import Rosters
from gateway.selections import Selections
from gateway.service_accounts import ServiceAccounts
from gateway.session_door import SessionDoor
from gateway.shared_events import SharedEvents
from gateway.sse import Streams
from gateway.subscriptions import SubscriptionBook
from gateway.waiting import Waiting
from gateway.webhook_desk import WebhookDesk
from router.service import Service
from router.store_ports import DeadLetterIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything `create_app` needs. `check_url` raises `Invalid` for a URL that may not become a webhook.

    `webhook_secret_readable`: a webhook's secret may be read again, as CueAPI's clients do. `beat_secret`: what proves
    which sessions a monitor may beat for over the broker.
    """

    clock: Clock
    ids: Ids
    store: DirectoryStore
    service: Service
    queries: Queries
    dead_letters: DeadLetterIndex
    beats: Beats
    workers: Workers
    held_jobs: HeldJobs
    key_uses: KeyUses
    watch: Watch
    announcer: Announcer
    events: SharedEvents
    echo_pushes: EchoPushes
    high_priorities: HighPriorities
    guard_book: GuardBook
    rate_limits: RateLimits
    probe: Probe
    check_url: Callable[[str], None]
    webhook_door: WebhookDoor
    beat_secret: bytes
    tokens: Tokens | None = None
    monitor_signer: MonitorSigner | None = None
    monitor_settings: MonitorSettings = field(default_factory=MonitorSettings)
    webhook_secret_readable: bool = False
    open_registration: bool = False
    limits: LimitSettings = field(default_factory=LimitSettings)
    echo_settings: EchoSettings = field(default_factory=EchoSettings)
    metrics: Metrics = field(default_factory=Metrics)


class Rooms:
    """The gateway's own rooms, made of the parts once; every endpoint finds them as `request.app.state.rooms`."""

    def __init__(self, parts: Parts) -> None:
        store, clock, ids = parts.store, parts.clock, parts.ids
        self.parts = parts
        self.authenticator = Authenticator(store, clock, parts.key_uses, parts.tokens)
        self.limits = LimitLayers(
            parts.limits,
            parts.rate_limits,
            authenticator=self.authenticator,
            registry=parts.metrics.registry,
            clock=clock,
        )
        self.directory = Directory(store)
        self.holds = Holds()
        self.streams = Streams(holds=self.holds, clock=clock)
        self.notices = Notices(log=parts.events, clock=clock, ids=ids)
        self.subscriptions = SubscriptionBook(
            store=store, log=parts.events, clock=clock, ids=ids, check_url=parts.check_url
        )
        self.waiting = Waiting(service=parts.service, watch=parts.watch, clock=clock, holds=self.holds)
        self.agents = Agents(store=store, clock=clock, ids=ids, check_url=parts.check_url)
        self.webhooks = WebhookDesk(
            store=store, door=parts.webhook_door, limits=parts.rate_limits, clock=clock, ids=ids
        )
        self.accounts = Accounts(store=store, clock=clock, ids=ids)
        self.rosters = Rosters(agents=self.agents, directory=self.directory, beats=parts.beats, clock=clock)
        self.agent_searches = AgentSearches(agents=self.agents, rosters=self.rosters, clock=clock)
        self.service_accounts = ServiceAccounts(store=store, clock=clock, ids=ids)
        self.project_agents = ProjectAgents(agents=self.agents, directory=self.directory)
        self.keys = ApiKeys(store=store, authenticator=self.authenticator, clock=clock, ids=ids)
        self.grants = Grants(store=store, clock=clock)
        self.guard_trips = GuardTrips(book=parts.guard_book, notices=self.notices)
        self.guards = GuardDesk(book=parts.guard_book, directory=self.directory, grants=self.grants, clock=clock)
        self.dead_letters = DeadLetters(
            index=parts.dead_letters, queries=parts.queries, service=parts.service, directory=self.directory
        )
        self.redrives = RedriveBook(store=store, clock=clock, ids=ids)
        self.intake = Intake(
            directory=self.directory,
            grants=self.grants,
            conversation=Conversation(service=parts.service, high_priorities=parts.high_priorities, ids=ids),
            clock=clock,
            lookups=self.limits.lookups,
        )
        namespaces = Namespaces(store)
        self.selections = Selections(
            candidates=Candidates(namespaces=namespaces, grants=self.grants, service=parts.service),
            intake=self.intake,
            service=parts.service,
            store=store,
            ids=ids,
        )
        self.cues = CueBook(
            store=store,
            service=parts.service,
            intake=self.intake,
            clock=clock,
            ids=ids,
            check_url=parts.check_url,
        )
        self.echoes = Echoes(
            settings=parts.echo_settings,
            beats=parts.beats,
            pushes=parts.echo_pushes,
            metrics=parts.metrics,
            clock=clock,
            ids=ids,
        )
        self.echo_trials = EchoTrials(echoes=self.echoes, beats=parts.beats, holds=self.holds, clock=clock)
        self.sessions = LiveSessionBook(store=store, beats=parts.beats, announcer=parts.announcer, clock=clock, ids=ids)
        self.claimables = Claimables(parts.queries, parts.service)
        self.jobs = JobDesk(
            service=parts.service,
            queries=parts.queries,
            claimables=self.claimables,
            watch=parts.watch,
            beats=parts.beats,
            held_jobs=parts.held_jobs,
            directory=self.directory,
            namespaces=namespaces,
            holds=self.holds,
            clock=clock,
        )
        self.monitor_credentials = MonitorCredentials(
            store=store,
            directory=self.directory,
            signer=parts.monitor_signer,
            clock=clock,
            settings=parts.monitor_settings,
        )
        self.session_door = SessionDoor(directory=self.directory, sessions=self.sessions, beats=parts.beats)


def rooms_of(request: Request) -> Rooms:
    rooms: Any = request.app.state.rooms
    assert isinstance(rooms, Rooms)
    return rooms
