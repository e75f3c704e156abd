"""The one way to change a message: read, check, decide, append. Every change is one compare-and-set.

Each operation has the same shape: read the message's events, fold them, let a pure function decide, append one event
with the sequence that was read. When somebody else was faster the append is `Stale`, and the operation starts again
with what is there now. So no decision is ever made on a state that had already changed.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from random import random
from typing import Any, Final

from contracts import ids
from contracts.clock import Clock, Ids
from contracts.errors import Conflict, Forbidden, NotFound, Stale, Unavailable
from contracts.events import Accepted, Event, FellBack, History, Offered, Released, Replayed, Stored
from contracts.records import Agent, Decision, Envelope, Principal, Reachability
from contracts.words import Channel, State
from router.attestation import push_nonce
from router.channels import ALL
from router.eligibility import obstacle
from router.execution import Execution, apply, fold
from router.explain import View, message_view, trace_view
from router.gates import ECHO_BOUND_S, Question
from router.guarding import Guarding
from router.guards import GuardLimits
from router.ports import Authorizer, Budgets, Directory, Freshness, Ledger, Projection, Pushes, Row, Workloads
from router.settled import SettledDecisions

ROUNDS: Final = 16
"""How often an operation starts again when others are faster; more would mean a livelock somewhere."""

SENDERS: Final = frozenset(
    {
        *("message.read", "message.answer", "message.follow", "message.cancel", "message.redrive"),
        *("execution.read", "execution.verify", "execution.replay"),
    }
)
"""What the sender's side may do; everything else is the receiver's."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A message as it stands: its events, and the execution they fold to."""

    history: History
    execution: Execution
    replayed: bool = False

    @cached_property
    def view(self) -> View:
        """The message view without its trace, as lists show it; made once, because several readers want it."""
        return message_view(self.history, self.execution, trace=False)

    def written(self, to_json: Callable[[Any], bytes]) -> bytes:
        """`view` as JSON, made once: the row and the answer hold the same bytes."""
        written: bytes | None = self.__dict__.get("_written")
        if written is None:
            written = self.__dict__["_written"] = to_json(self.view)
        return written

    @property
    def explained(self) -> View:
        """The message view of docs/api.md, with its trace."""
        return {**self.view, "trace": trace_view(self.execution.trace)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The numbers an installation may choose."""

    outcome_deadline: timedelta = timedelta(minutes=15)
    bg_max_attempts: int = ALL[Channel.BG].ladder.max_attempts
    guards: GuardLimits = GuardLimits()
    echo_bound_s: int = ECHO_BOUND_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The ports a desk works with. `to_json` writes views; `dice` returns numbers in [0, 1)."""

    ledger: Ledger
    pushes: Pushes
    projection: Projection
    freshness: Freshness
    directory: Directory
    authorize: Authorizer
    clock: Clock
    id_source: Ids
    to_json: Callable[[Any], bytes]
    dice: Callable[[], float] = random
    budgets: Budgets | None = None
    workloads: Workloads | None = None


Decider = Callable[[Standing, datetime], Awaitable[Event | Standing]]
"""Looks at a message and says what happens to it: an event to append, or the standing when there is nothing to do."""


class Desk:
    """What every operation of the router shares."""

    def __init__(self, neighbours: Neighbours, *, nonce_secret: bytes, policy: Policy | None = None) -> None:
        self._ledger = neighbours.ledger
        self._pushes = neighbours.pushes
        self._projection = neighbours.projection
        self._freshness = neighbours.freshness
        self._directory = neighbours.directory
        self._authorize = neighbours.authorize
        self._clock = neighbours.clock
        self._ids = neighbours.id_source
        self._to_json = neighbours.to_json
        self._dice = neighbours.dice
        self._workloads = neighbours.workloads
        self._nonce_secret = nonce_secret
        self._policy = policy or Policy()
        self._settled = SettledDecisions()
        self._guarding = Guarding(neighbours.ledger, neighbours.budgets, self._policy.guards)

    async def find_message(self, message_id: str, principal: Principal, action: str = "message.read") -> Standing:
        """Raises `NotFound` for what is absent and for what the caller may not see, alike."""
        ulid = ids.ulid_of_message(message_id)
        if ulid is None:
            raise no_message()
        return await self._visible(ulid, None, principal, action)

    async def find_execution(self, execution_id: str, principal: Principal, action: str = "execution.read") -> Standing:
        """Raises `NotFound` for what is absent and for what the caller may not see, alike."""
        ulid, number = parse_execution(execution_id)
        return await self._visible(ulid, number, principal, action)

    async def _visible(self, ulid: str, number: int | None, principal: Principal, action: str) -> Standing:
        standing = await self._load(ulid, absent=_absent(action))
        await self._check(standing, number, principal, action)
        if number is None or number == standing.execution.number:
            return standing
        return replace(standing, execution=fold(standing.history, number))

    async def _check(self, standing: Standing, number: int | None, principal: Principal, action: str) -> None:
        """The receiver's side acts; the sender's side may read and cancel. Foreign looks like absent."""
        message = standing.history.message
        allowed = await self._may(principal, action, message.agent_owner, message.agent_id)
        if not allowed and action in SENDERS:
            allowed = await self._may(principal, action, message.sender.owner, message.sender.agent_id)
        if not allowed or (number is not None and number > standing.execution.number):
            raise _absent(action)()

    async def _may(self, principal: Principal, action: str, owner: str, agent_id: str | None) -> bool:
        """Whether the caller may act for one side of a message; its agent is looked up only for whom that matters."""
        agent = await self._directory.agent(agent_id) if agent_id and principal.is_confined else None
        return self._authorize(principal, action, owner, agent)

    async def obstacle_at(self, agent_id: str) -> Conflict | None:
        """Why nothing new is to be had for this agent (`agent_inactive`, `service_account_disabled`), or None."""
        agent = await self._directory.agent(agent_id)
        if agent is None:
            return None
        account_id = agent.service_account_id
        account = await self._directory.service_account(account_id) if account_id else None
        return obstacle(agent, account)

    async def _refuse_idle(self, agent_id: str) -> None:
        if refusal := await self.obstacle_at(agent_id):
            raise refusal

    def _check_newest(self, standing: Standing, number: int | None) -> None:
        """An execution that was followed by another has ended: nothing can be done with it any more."""
        if number is not None and number < standing.execution.number:
            raise Conflict("execution_closed", "This execution has ended; the message has a newer one.")

    async def _load(self, ulid: str, *, fresh: bool = True, absent: Callable[[], NotFound] | None = None) -> Standing:
        history = await self._ledger.load(ulid, fresh=fresh)
        if history is None:
            raise absent() if absent else no_message()
        return Standing(history=history, execution=fold(history))

    def nonce(self, execution_id: str, claim_before: datetime) -> str:
        """The nonce that travels in the push of this offer."""
        return push_nonce(self._nonce_secret, execution_id, claim_before)

    def _max_attempts(self, channel: Channel) -> int:
        return self._policy.bg_max_attempts if channel is Channel.BG else ALL[channel].ladder.max_attempts

    def _first_attempts(self, decision: Decision) -> int:
        return self._max_attempts(decision.steps[0].channel) if decision.steps else 1

    async def _question(self, agent: Agent) -> Question:
        sessions = await self._directory.live_sessions(agent.id)
        return self._asked(agent, await self._freshness.reachability(agent.id, sessions))

    def _asked(self, agent: Agent, reach: Reachability) -> Question:
        return Question(recipient=agent, reach=reach, now=self._clock.now(), echo_bound_s=self._policy.echo_bound_s)

    async def _change_message(
        self,
        message_id: str,
        principal: Principal,
        action: str,
        step: Decider,
    ) -> Standing:
        ulid = ids.ulid_of_message(message_id)
        if ulid is None:
            raise no_message()
        return await self._change(ulid, None, principal, action, step)

    async def _change_execution(
        self,
        execution_id: str,
        principal: Principal,
        action: str,
        step: Decider,
    ) -> Standing:
        ulid, number = parse_execution(execution_id)
        return await self._change(ulid, number, principal, action, step)

    async def _change(
        self,
        ulid: str,
        number: int | None,
        principal: Principal,
        action: str,
        step: Decider,
    ) -> Standing:
        """Read, check, decide, append; start again with what is there when somebody else was faster.

        The first round may use a remembered history: its append finds out if it is old. A refusal is only ever
        raised from what the broker says now.
        """
        fresh = False
        for _ in range(ROUNDS):
            try:
                standing = await self._load(ulid, fresh=fresh, absent=_absent(action))
                await self._check(standing, number, principal, action)
                self._check_newest(standing, number)
                result = await step(standing, self._clock.now())
                if isinstance(result, Standing):
                    return result
                return await self._append(standing, result)
            except Stale:
                fresh = True
            except (Conflict, Forbidden, NotFound):
                if fresh:
                    raise
                fresh = True
        raise Unavailable("contended", "Too many callers change this message at once.")

    async def _append(self, standing: Standing, event: Event) -> Standing:
        history = standing.history
        execution = apply(standing.execution, event)
        seq = await self._ledger.append(history.ulid, event, expected_seq=history.head_seq)
        history = replace(history, events=(*history.events, Stored(seq=seq, event=event)))
        moved = replace(standing, history=history, execution=execution)
        await self._announce(moved)
        return moved

    async def _announce(self, standing: Standing) -> None:
        """Tell those who wait: the projection, and the monitors when there is something new to take."""
        self._projection.write(self.row(standing))
        if envelope := self._envelope(standing):
            await self._pushes.push(envelope)

    def _envelope(self, standing: Standing) -> Envelope | None:
        """The push for the state just entered; None when nobody has to be told."""
        execution, last = standing.execution, standing.history.events[-1].event
        if not isinstance(last, Accepted | Released | Replayed | Offered | FellBack) or not execution.is_open:
            return None
        if execution.state in (State.SCHEDULED, State.WAITING) or not ALL[execution.channel].is_pushed:
            return None
        execution_id = ids.execution_id(standing.history.ulid, execution.number)
        message, before = standing.history.message, execution.claim_before
        return Envelope(
            channel=execution.channel,
            agent_id=message.agent_id,
            execution_id=execution_id,
            message_id=message.id,
            sent_at=last.at,
            nonce=self.nonce(execution_id, before) if before else None,
            claim_before=before,
        )

    def row(self, standing: Standing) -> Row:
        """The message as queries see it."""
        history, execution = standing.history, standing.execution
        message = history.message
        return Row(
            ulid=history.ulid,
            seq=history.head_seq,
            accept_seq=history.events[0].seq,
            owner=message.agent_owner,
            agent_id=message.agent_id,
            sender_agent_id=message.sender.agent_id,
            sender_owner=message.sender.owner,
            channel=execution.channel,
            state=execution.state,
            thread=message.thread,
            priority=message.context.priority,
            accepted_at=message.accepted_at,
            view=standing.written(self._to_json),
        )

    async def project(self, ulid: str) -> Execution | None:
        """Write a message's row anew from the ledger; its execution, or None when there is no such message."""
        history = await self._ledger.load(ulid)
        if history is None:
            return None
        standing = Standing(history=history, execution=fold(history))
        self._projection.write(self.row(standing))
        return standing.execution


def _absent(action: str) -> Callable[[], NotFound]:
    """What the caller hears of a thing that is not there, and of one that is not theirs: the very same."""
    return no_execution if action.startswith("execution") else no_message


def parse_execution(execution_id: str) -> tuple[str, int | None]:
    """The message's ulid and the execution's number: None, the newest, where a message's id stands for it."""
    ulid = ids.ulid_of_message(execution_id)
    parsed = (ulid, None) if ulid else ids.ulid_of_execution(execution_id)
    if parsed is None:
        raise no_execution()
    return parsed


def no_message() -> NotFound:
    return NotFound("message_not_found", "There is no such message.")


def no_execution() -> NotFound:
    return NotFound("execution_not_found", "There is no such execution.")
