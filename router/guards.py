"""The guards: what stops messages that agents send each other without end. Pure.

    hop_limit      how many messages, one answering the other, led to this one?
    cycle          do the same agents pass it on in the same order again and again?
    auto_reply     does a machine answer a machine?
    sender_budget  how fast does this agent send?                 messages per second, off by default
    pair_budget    how fast does it send to this very agent?      messages per minute
    thread_budget  how fast does this conversation grow?          messages per hour

The first three look at the message alone, the others at what was counted. A message that names no sending agent is a
person's: no hop and no cycle refuses it, and counting starts anew behind it. One that neither names an agent nor
answers anything is asked nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from contracts.records import Context, GateResult, Message, Sender, Trace
from contracts.words import Gate, Reason, Verdict
from router.ports import Budget, BudgetFact

GUARDS: Final = frozenset(
    {Gate.HOP_LIMIT, Gate.CYCLE, Gate.AUTO_REPLY, Gate.SENDER_BUDGET, Gate.PAIR_BUDGET, Gate.THREAD_BUDGET}
)
SHORTEST_CYCLE: Final = 3
"""Two agents who take turns are in a dialogue; its length is the hop limit's business."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLimits:
    """Where each guard says no; 0 switches one off.

    `cool_down_s` is how long an open guard refuses before it lets one message through to see.
    """

    max_hops: int = 16
    max_rounds: int = 3
    agent_per_s: float = 0
    agent_burst_s: int = 10
    pair_per_min: int = 60
    thread_per_h: int = 500
    cool_down_s: int = 30
    brakes_auto_replies: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Everything a guard may look at: who sends to whom, and what came before."""

    sender: Sender
    recipient_id: str
    context: Context
    answers_auto_reply: bool = False


def is_guarded(sender: Sender, context: Context) -> bool:
    """Say whether any guard is asked at all: a message of nobody's agent that answers nothing passes for nothing."""
    return sender.agent_id is not None or context.reply_to is not None


def guard(passage: Passage, limits: GuardLimits, facts: Sequence[BudgetFact] | None = ()) -> Trace:
    """Every guard's answer, up to the first "no".

    `facts` answers `budgets_of(passage, limits)` in order; None when nobody could be asked: then every budget counts
    as unknown, which refuses nothing.
    """
    chain = guard_chain(passage, limits)
    return chain if refusal_in(chain) else chain + guard_budgets(budgets_of(passage, limits), facts)


def guard_chain(passage: Passage, limits: GuardLimits) -> Trace:
    """What the message alone says, up to the first "no": hops, cycle, auto-reply."""
    answers: list[GateResult] = []
    for answer in _chain_answers(passage, limits):
        answers.append(answer)
        if answer.verdict is Verdict.FAIL:
            break
    return tuple(answers)


def guard_budgets(budgets: Sequence[Budget], facts: Sequence[BudgetFact] | None) -> Trace:
    """What was counted, up to the first "no"."""
    if facts is None:
        return tuple(_unknown(budget) for budget in budgets)
    answers: list[GateResult] = []
    for budget, fact in zip(budgets, facts, strict=False):
        answers.append(_budget_answer(budget, fact))
        if not fact.admits:
            break
    return tuple(answers)


def budgets_of(passage: Passage, limits: GuardLimits) -> tuple[Budget, ...]:
    """The budgets a message spends: of its sending agent, of the pair, and of the thread it goes on with."""
    return tuple(_budgets(passage, limits))


def guard_answers(trace: Trace) -> Trace:
    """The guards' part of a trace."""
    return tuple(each for each in trace if each.gate in GUARDS)


def refusal_in(trace: Trace) -> GateResult | None:
    """The guard that said no, or None."""
    return trace[-1] if trace and trace[-1].verdict is Verdict.FAIL else None


def hops_after(parent: Message) -> int:
    """How many messages led to an answer to `parent`, counted from the last one that names no sending agent."""
    return parent.context.hop + 1 if parent.sender.agent_id else 1


def rounds_of(agents: Iterable[str]) -> tuple[int, int]:
    """How often the way's last stretch was gone in a row, and how many agents it has: (1, 0) when it is new.

    Answers are taken back first: an agent that returns to whoever asked it goes no further, so a hub and its workers
    never leave the hub, however many there are. What is left goes on; its shortest repetition counts.
    """
    way = _without_returns(agents)
    best = (1, 0)
    for period in range(SHORTEST_CYCLE, len(way) // 2 + 1):
        rounds = _repetitions(way, period)
        if rounds > best[0]:
            best = (rounds, period)
    return best


def _chain_answers(passage: Passage, limits: GuardLimits) -> Iterator[GateResult]:
    context, agent = passage.context, passage.sender.agent_id
    if context.is_auto_reply and limits.brakes_auto_replies:
        reason = Reason.AUTO_REPLY_TO_AUTO_REPLY if passage.answers_auto_reply else Reason.OK
        yield _answer(Gate.AUTO_REPLY, reason)
    if agent is None or context.reply_to is None:
        return
    if limits.max_hops:
        reason = Reason.HOP_LIMIT_EXCEEDED if context.hop > limits.max_hops else Reason.OK
        yield _answer(Gate.HOP_LIMIT, reason, hop=context.hop, limit=limits.max_hops)
    if limits.max_rounds:
        rounds, agents = rounds_of((*context.chain, agent, passage.recipient_id))
        reason = Reason.CYCLE_DETECTED if rounds >= limits.max_rounds else Reason.OK
        yield _answer(Gate.CYCLE, reason, rounds=rounds, agents=agents, limit=limits.max_rounds)


def _budgets(passage: Passage, limits: GuardLimits) -> Iterator[Budget]:
    sender, thread = passage.sender, passage.context.thread_id
    if sender.agent_id is not None and limits.agent_per_s:
        allowed = max(1, int(limits.agent_per_s * limits.agent_burst_s))
        yield Budget(
            gate=Gate.SENDER_BUDGET,
            owner=sender.owner,
            sender=sender.agent_id,
            limit=allowed,
            window_s=allowed / limits.agent_per_s,
        )
    if sender.agent_id is not None and limits.pair_per_min:
        yield Budget(
            gate=Gate.PAIR_BUDGET,
            owner=sender.owner,
            sender=sender.agent_id,
            recipient=passage.recipient_id,
            limit=limits.pair_per_min,
            window_s=60,
            cool_down_s=limits.cool_down_s,
        )
    if thread is not None and limits.thread_per_h:
        yield Budget(
            gate=Gate.THREAD_BUDGET,
            owner=sender.owner,
            thread=thread,
            limit=limits.thread_per_h,
            window_s=3_600,
            cool_down_s=limits.cool_down_s,
        )


EXHAUSTED: Final = {
    Gate.SENDER_BUDGET: Reason.RATE_LIMIT_EXCEEDED,
    Gate.PAIR_BUDGET: Reason.PAIR_BUDGET_EXHAUSTED,
    Gate.THREAD_BUDGET: Reason.THREAD_BUDGET_EXHAUSTED,
}


def _budget_answer(budget: Budget, fact: BudgetFact) -> GateResult:
    facts: dict[str, Any] = {"limit": budget.limit, "window_s": budget.window_s}
    if not fact.admits:
        opened = {"opened": True} if fact.has_opened else {}
        return _answer(budget.gate, EXHAUSTED[budget.gate], **facts, **opened, retry_after_s=fact.retry_after_s)
    facts["remaining"] = fact.remaining
    if fact.is_probe:
        facts["probe"] = True
    return _answer(budget.gate, Reason.OK, **facts)


def _unknown(budget: Budget) -> GateResult:
    facts = {"limit": budget.limit, "window_s": budget.window_s}
    reason = Reason.BUDGET_UNKNOWN
    return GateResult(gate=budget.gate, channel=None, verdict=Verdict.PASS, reason=reason, facts=facts)


def _answer(gate: Gate, reason: Reason, **facts: Any) -> GateResult:
    verdict = Verdict.PASS if reason is Reason.OK else Verdict.FAIL
    return GateResult(gate=gate, channel=None, verdict=verdict, reason=reason, facts=facts)


def _without_returns(agents: Iterable[str]) -> list[str]:
    """The way with every answer taken back: A asks B, B asks C, C answers B, B answers A leaves A alone."""
    way: list[str] = []
    for agent in agents:
        if way and way[-1] == agent:
            continue
        if len(way) > 1 and way[-2] == agent:
            way.pop()
        else:
            way.append(agent)
    return way


def _repetitions(way: list[str], period: int) -> int:
    """How often in a row the last `period` agents stand at the end of the way."""
    stretch, rounds = way[-period:], 1
    while way[-(rounds + 1) * period : -rounds * period] == stretch:
        rounds += 1
    return rounds
