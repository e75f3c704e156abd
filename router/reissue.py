"""Deciding later, and deciding again: scheduled messages whose time has come, and replays of ended ones."""

from datetime import datetime

from contracts.errors import Conflict, Stale
from contracts.events import Ended, Event, Released, Replayed
from contracts.records import Agent, Decision, Message, Principal, Wish
from contracts.words import Reason, State
from router.decision import decide, first_state
from router.desk import Desk, Standing, no_execution
from router.terms import claim_before, rejection, time_to_live


class Reissues(Desk):
    """The gates are asked again with what is true now; the old answers stay in the ledger."""

    async def route_scheduled(self, ulid: str, *, by: str) -> Standing:
        """Route a scheduled message if its time has come; its standing afterwards, whoever acted."""
        while True:
            standing = await self._load(ulid)
            execution, now = standing.execution, self._clock.now()
            if execution.state is not State.SCHEDULED or execution.release_at is None or now < execution.release_at:
                return standing
            try:
                return await self._append(standing, await self._released(standing, by))
            except Stale:
                continue

    async def _released(self, standing: Standing, by: str) -> Event:
        message, number = standing.history.message, standing.execution.number
        agent = await self._directory.agent(message.agent_id)
        now = self._clock.now()
        decision = await self._decide_again(message, agent) if agent else None
        if agent is None or decision is None or decision.ending is State.REJECTED:
            reason = decision.reason if decision else Reason.AGENT_INACTIVE
            trace = decision.trace if decision else ()
            return Ended(at=now, by=by, execution=number, state=State.REJECTED, reason=reason, trace=trace)
        return Released(
            at=now,
            by=by,
            execution=number,
            decision=decision,
            claim_before=_window(message.wish, agent, decision, now, standing.execution.expires_at),
            max_attempts=self._first_attempts(decision),
        )

    async def replay(self, execution_id: str, principal: Principal) -> Standing:
        """Deliver an ended message once more, as a new execution of it.

        Raises `Conflict` (`execution_in_flight`) while the newest execution is open, and what `accept` raises when the
        message cannot be routed now.
        """

        async def step(standing: Standing, now: datetime) -> Event:
            message, execution = standing.history.message, standing.execution
            if execution.is_open:
                raise Conflict("execution_in_flight", "The message is still on its way.")
            agent = await self._directory.agent(message.agent_id)
            if agent is None:
                raise no_execution()
            decision = await self._decide_again(message, agent)
            if decision.ending is State.REJECTED:
                raise rejection(decision)
            return self._replayed(standing, agent, decision, by=f"key:{principal.key_id}")

        return await self._change_execution(execution_id, principal, "execution.replay", step)

    def _replayed(self, standing: Standing, agent: Agent, decision: Decision, *, by: str) -> Replayed:
        message, now = standing.history.message, self._clock.now()
        expires_at = now + time_to_live(message.wish, decision)
        return Replayed(
            at=now,
            by=by,
            execution=standing.execution.number + 1,
            agent_id=message.agent_id,
            decision=decision,
            expires_at=expires_at,
            claim_before=_window(message.wish, agent, decision, now, expires_at),
            max_attempts=self._first_attempts(decision),
        )

    async def _decide_again(self, message: Message, agent: Agent) -> Decision:
        return decide(message.wish, await self._question(agent))


def _window(wish: Wish, agent: Agent, decision: Decision, now: datetime, expires_at: datetime) -> datetime | None:
    return claim_before(wish, agent, now, expires_at) if first_state(decision) is State.OFFERED else None
