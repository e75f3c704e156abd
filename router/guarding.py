"""The guards at work: what they have to know is found out, and a message that may pass spends its budgets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from contracts import ids
from contracts.records import Context, Decision, Sender, Trace
from contracts.words import State
from router.guards import (
    GuardLimits,
    Passage,
    budgets_of,
    guard_budgets,
    guard_chain,
    refusal_in,
)
from router.ports import Budget, BudgetFact, Budgets, Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A decision behind the guards, and the open budgets this message is the probe of."""

    decision: Decision
    probes: tuple[Budget, ...] = ()


class Guarding:
    """Asks the guards around a decision. Without `budgets` nothing is counted, and every budget is unknown."""

    def __init__(self, ledger: Ledger, budgets: Budgets | None, limits: GuardLimits) -> None:
        self._ledger = ledger
        self._budgets = budgets
        self._limits = limits

    async def passage(self, sender: Sender, recipient_id: str, context: Context) -> Passage:
        """What the guards look at."""
        return Passage(
            sender=sender,
            recipient_id=recipient_id,
            context=context,
            answers_auto_reply=context.is_auto_reply and await self._answers_auto_reply(context),
        )

    def chain(self, passage: Passage) -> Trace:
        return guard_chain(passage, self._limits)

    async def around(self, decision: Decision, passage: Passage, trace: Trace, *, spend: bool) -> Guarded:
        """`decision` with the guards' answers before its own; refused when a budget is used up.

        A message the decision refuses spends nothing.
        """
        if decision.ending is State.REJECTED:
            return Guarded(decision=replace(decision, trace=trace + decision.trace))
        budgets = budgets_of(passage, self._limits)
        facts = await self._ask(budgets, spend=spend)
        trace += guard_budgets(budgets, facts)
        if refusal_in(trace):
            return Guarded(decision=refused(trace))
        probes = tuple(budget for budget, fact in zip(budgets, facts or (), strict=False) if fact.is_probe)
        return Guarded(decision=replace(decision, trace=trace + decision.trace), probes=probes)

    async def came_through(self, probes: Sequence[Budget]) -> None:
        """The message that tried these budgets is stored."""
        if probes and self._budgets is not None:
            await self._budgets.close(probes)

    async def _ask(self, budgets: Sequence[Budget], *, spend: bool) -> tuple[BudgetFact, ...] | None:
        if not budgets:
            return ()
        return await self._budgets.ask(budgets, spend=spend) if self._budgets is not None else None

    async def _answers_auto_reply(self, context: Context) -> bool:
        """A remembered history is good enough: how a message was accepted never changes."""
        ulid = ids.ulid_of_message(context.reply_to) if context.reply_to else None
        answered = await self._ledger.load(ulid, fresh=False) if ulid else None
        return answered is not None and answered.message.context.is_auto_reply


def refused(trace: Trace) -> Decision:
    """The decision that a guard's "no" is."""
    return Decision(steps=(), trace=trace, ending=State.REJECTED, reason=trace[-1].reason)
