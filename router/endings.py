"""Outcomes, cancelling, the inbox and deadlines: how executions come to their end."""

from dataclasses import replace
from datetime import datetime

from contracts.errors import Conflict, Stale
from contracts.events import Ended, Event, FellBack, InboxMarked, OutcomeRecorded
from contracts.records import Outcome, Principal
from contracts.words import INBOX_STATES, Channel, Reason, State
from router.channels import ALL
from router.deadlines import on_deadline
from router.desk import Desk, Standing
from router.gates import Question
from router.reports import Report, Unacceptable, judge
from router.verification import worth


class Endings(Desk):
    """Everything that finishes an execution, or moves it on in its inbox."""

    async def report(self, execution_id: str, report: Report, principal: Principal) -> Standing:
        """Record an outcome. Raises `Conflict` with the code `router.reports.judge` gives; repeating is allowed."""

        async def step(standing: Standing, now: datetime) -> Event | Standing:
            verdict = judge(report, standing.execution, now)
            if isinstance(verdict, Unacceptable):
                raise Conflict(verdict.code, verdict.message)
            if verdict is standing.execution.outcome:
                return replace(standing, replayed=True)
            mode, lease = standing.history.message.wish.verification, standing.execution.lease
            state = worth(mode, success=verdict.success, evidence=verdict.evidence)
            return OutcomeRecorded(
                at=now,
                by=f"key:{principal.key_id}",
                execution=standing.execution.number,
                outcome=replace(verdict, state=state),
                lease=lease.number if lease else None,
            )

        return await self._change_execution(execution_id, principal, "execution.report", step)

    async def cancel(self, message_id: str, principal: Principal) -> Standing:
        """Call a message back before anybody works on it. Raises `Conflict` (`not_cancellable`) afterwards."""

        async def step(standing: Standing, now: datetime) -> Event | Standing:
            execution = standing.execution
            if execution.state is State.CANCELLED:
                return standing
            if execution.state in (State.CLAIMED, State.LEASED) or not execution.is_open:
                raise Conflict("not_cancellable", "Work on this message has begun, or it has ended.")
            return Ended(
                at=now,
                by=f"key:{principal.key_id}",
                execution=execution.number,
                state=State.CANCELLED,
                reason=Reason.CANCELLED_BY_SENDER,
            )

        return await self._change_message(message_id, principal, "message.cancel", step)

    async def mark(self, message_id: str, state: State, principal: Principal) -> Standing:
        """Move an inbox message to delivered or read. Raises `Conflict` (`invalid_state_transition`)."""

        async def step(standing: Standing, now: datetime) -> Event | Standing:
            execution = standing.execution
            if execution.state is state or (state is State.INBOX_DELIVERED and execution.state is State.INBOX_READ):
                return standing
            if execution.state not in INBOX_STATES:
                raise _no_transition()
            return InboxMarked(at=now, by=f"key:{principal.key_id}", execution=execution.number, state=state)

        return await self._change_message(message_id, principal, "inbox.mark", step)

    async def acknowledge(self, message_id: str, principal: Principal) -> Standing:
        """The receiver has dealt with an inbox message: delivered. Repeating is allowed."""

        async def step(standing: Standing, now: datetime) -> Event | Standing:
            execution = standing.execution
            if execution.reason is Reason.ACKNOWLEDGED:
                return standing
            if execution.state not in INBOX_STATES:
                raise _no_transition()
            mode = standing.history.message.wish.verification
            outcome = Outcome(
                success=True,
                executed_via=Channel.INBOX.value,
                route=ALL[Channel.INBOX].route,
                state=worth(mode, success=True, evidence={}),
            )
            return OutcomeRecorded(
                at=now,
                by=f"key:{principal.key_id}",
                execution=execution.number,
                outcome=outcome,
                reason=Reason.ACKNOWLEDGED,
            )

        return await self._change_message(message_id, principal, "inbox.acknowledge", step)

    async def close_overdue(self, ulid: str, *, by: str) -> Standing:
        """Apply what is due for this message, if anything is; its standing afterwards, whoever acted."""
        while True:
            standing = await self._load(ulid)
            now = self._clock.now()
            q = await self._fallback_question(standing)
            event = on_deadline(standing.execution, q, now, self._dice(), by)
            if event is None:
                return standing
            if isinstance(event, FellBack):
                event = replace(event, max_attempts=self._max_attempts(event.step.channel))
            try:
                return await self._append(standing, event)
            except Stale:
                continue

    async def _fallback_question(self, standing: Standing) -> Question | None:
        if standing.execution.state is not State.OFFERED or not standing.execution.plan:
            return None
        agent = await self._directory.agent(standing.history.message.agent_id)
        return await self._question(agent) if agent else None


def _no_transition() -> Conflict:
    return Conflict("invalid_state_transition", "The message is not in a state that allows this.")
