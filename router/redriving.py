"""Dead letters at the desk: delivered once more with the gates asked again, or discarded for good.

A redrive is a replay that has to be worth it: where the gates would only end the message again, nothing is stored and
the dead letter stays what it is, with the reason told.
"""

from datetime import datetime

from contracts.errors import Conflict, PostroomError, Stale, Unavailable
from contracts.events import Discarded, Event
from contracts.records import Agent, Decision, Principal
from contracts.redrives import Redrive
from contracts.words import Reason, State
from router.dead_letters import is_dead_letter, is_redrivable, was_redriven_by
from router.desk import ROUNDS, Standing, no_message
from router.execution import fold
from router.explain import trace_view
from router.redrive_runs import MovedOn, Passage, Redriven, Refused
from router.reissue import Reissues
from router.terms import rejection


class Redriving(Reissues):
    """Whoever may redrive may replay; whoever may discard is on the receiver's side."""

    async def redrive(self, message_id: str, principal: Principal) -> Standing:
        """Deliver a dead letter, or a failed delivery, once more.

        Raises `Conflict`: `execution_in_flight`, `not_a_dead_letter`, `redrive_refused` with reason and trace where the
        gates would end it at once; and what `accept` raises when the message cannot be routed now.
        """

        async def step(standing: Standing, now: datetime) -> Event:
            agent, decision = await self._asked_again(standing)
            if decision.ending is not None:
                raise _refusal(decision)
            return self._replayed(standing, agent, decision, by=f"key:{principal.key_id}")

        return await self._change_message(message_id, principal, "message.redrive", step)

    async def would_redrive(self, message_id: str, principal: Principal) -> Decision:
        """What the gates say of it now; stores nothing. Raises what `redrive` does before it asks them."""
        standing = await self.find_message(message_id, principal, "message.redrive")
        return (await self._asked_again(standing))[1]

    async def redrive_for(self, ulid: str, job: Redrive) -> Passage:
        """The same as one message of many: once for each job, however often it is asked for.

        Raises `Unavailable`; asking again finds out what had been stored.
        """
        for _ in range(ROUNDS):
            history = await self._ledger.load(ulid)
            if history is None or history.message.agent_owner != job.owner:
                return Refused("message_not_found")
            standing = Standing(history=history, execution=fold(history))
            if was_redriven_by(history, job.author):
                return Redriven()
            ended_at = standing.execution.ended_at
            if not is_redrivable(standing.execution) or ended_at is None or ended_at >= job.created_at:
                return MovedOn()
            agent = await self._directory.agent(history.message.agent_id)
            if agent is None:
                return Refused(Reason.AGENT_INACTIVE.value)
            decision = await self._decide_again(history.message, agent)
            if decision.ending is not None:
                return Refused(decision.reason.value)
            try:
                await self._append(standing, self._replayed(standing, agent, decision, by=job.author))
            except Stale:
                continue
            return Redriven()
        raise Unavailable("contended", "Too many callers change this message at once.")

    async def is_redriven_by(self, ulid: str, job: Redrive) -> bool:
        history = await self._ledger.load(ulid)
        return history is not None and was_redriven_by(history, job.author)

    async def discard(self, message_id: str, reason: str, principal: Principal) -> Standing:
        """Nothing more is wanted of this dead letter. Raises `Conflict` (`not_a_dead_letter`); may be repeated."""

        async def step(standing: Standing, now: datetime) -> Event | Standing:
            execution = standing.execution
            if execution.state is State.DISCARDED:
                return standing
            if not is_dead_letter(execution):
                raise _alive()
            return Discarded(at=now, by=f"key:{principal.key_id}", execution=execution.number, reason=reason)

        return await self._change_message(message_id, principal, "message.discard", step)

    async def _asked_again(self, standing: Standing) -> tuple[Agent, Decision]:
        execution = standing.execution
        if execution.is_open:
            raise Conflict("execution_in_flight", "The message is still on its way.")
        if not is_redrivable(execution):
            raise _alive()
        agent = await self._directory.agent(standing.history.message.agent_id)
        if agent is None:
            raise no_message()
        return agent, await self._decide_again(standing.history.message, agent)


def _refusal(decision: Decision) -> PostroomError:
    if decision.ending is State.REJECTED:
        return rejection(decision)
    sentence = "The gates would end it at once; it stays as it is."
    return Conflict("redrive_refused", sentence, reason=decision.reason.value, trace=trace_view(decision.trace))


def _alive() -> Conflict:
    return Conflict("not_a_dead_letter", "This message was delivered, cancelled or discarded, or is on its way.")
