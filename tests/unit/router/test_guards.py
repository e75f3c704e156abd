"""The guards' rules: who is asked what, where each says no, and what an unknown budget means."""

from typing import Any

import pytest

from contracts.records import Context, Message, Sender, Trace
from contracts.words import Gate, Reason, Verdict
from router.guards import (
    GuardLimits,
    Passage,
    budgets_of,
    guard,
    guard_answers,
    hops_after,
    is_guarded,
    rounds_of,
)
from router.ports import BudgetFact
from tests.builders import message

LIMITS = GuardLimits()
PARENT, THREAD = "msg_parent", "msg_thread"


def passage(sender: str | None = "A", to: str = "B", *, auto_to_auto: bool = False, **context: Any) -> Passage:
    return Passage(
        sender=Sender(owner="max", key_id="k", agent_id=sender),
        recipient_id=to,
        context=Context(**context),
        answers_auto_reply=auto_to_auto,
    )


def answer(sender: str | None = "A", to: str = "B", **context: Any) -> Passage:
    return passage(sender, to, **{"reply_to": PARENT, "thread_id": THREAD, **context})


def last(trace: Trace) -> tuple[Gate, Verdict, Reason]:
    return trace[-1].gate, trace[-1].verdict, trace[-1].reason


def gates(trace: Trace) -> list[Gate]:
    return [each.gate for each in trace]


FULL = (BudgetFact(admits=True, remaining=5), BudgetFact(admits=True, remaining=9))


class TestWhoIsAsked:
    def test_a_message_of_nobodys_agent_that_answers_nothing_is_asked_nothing(self) -> None:
        assert not is_guarded(Sender(owner="max", key_id="k"), Context())
        assert guard(passage(None), LIMITS) == ()

    def test_a_first_message_of_an_agent_is_asked_for_its_pair_alone(self) -> None:
        assert gates(guard(passage(), LIMITS, FULL[:1])) == [Gate.PAIR_BUDGET]

    def test_an_answer_of_an_agent_is_asked_everything(self) -> None:
        expected = [Gate.HOP_LIMIT, Gate.CYCLE, Gate.PAIR_BUDGET, Gate.THREAD_BUDGET]
        assert gates(guard(answer(hop=1, chain=("B",)), LIMITS, FULL)) == expected

    def test_a_persons_answer_is_asked_for_its_thread_alone(self) -> None:
        assert gates(guard(answer(None, hop=40), LIMITS, FULL[:1])) == [Gate.THREAD_BUDGET]

    def test_a_limit_of_zero_switches_its_guard_off(self) -> None:
        off = GuardLimits(max_hops=0, max_rounds=0, pair_per_min=0, thread_per_h=0, brakes_auto_replies=False)
        assert guard(answer(hop=99, chain=tuple("ABC" * 5), is_auto_reply=True), off) == ()

    def test_an_agents_own_rate_is_asked_for_where_it_is_set(self) -> None:
        [own, pair] = budgets_of(passage(), GuardLimits(agent_per_s=2))
        assert (own.gate, own.sender, own.recipient, own.limit, own.window_s) == (Gate.SENDER_BUDGET, "A", None, 20, 10)
        assert (pair.gate, pair.sender, pair.recipient, pair.limit) == (Gate.PAIR_BUDGET, "A", "B", 60)


class TestHopLimit:
    def test_the_last_hop_allowed_passes_and_the_next_is_refused(self) -> None:
        assert guard(answer(hop=16), LIMITS, FULL)[0].verdict is Verdict.PASS
        refused = guard(answer(hop=17), LIMITS, FULL)
        assert last(refused) == (Gate.HOP_LIMIT, Verdict.FAIL, Reason.HOP_LIMIT_EXCEEDED)
        assert refused[-1].facts == {"hop": 17, "limit": 16}

    def test_counting_starts_anew_behind_a_person(self) -> None:
        def sent_by(agent: str | None) -> Message:
            sender = Sender(owner="max", key_id="k", agent_id=agent)
            return message(sender=sender, context=Context(hop=9))

        assert hops_after(sent_by("A")) == 10
        assert hops_after(sent_by(None)) == 1


class TestCycle:
    @pytest.mark.parametrize(
        ("way", "rounds"),
        [
            ("", 1),
            ("A", 1),
            ("ABABABABABAB", 1),
            ("HUHVHWHUHVHWHUHVHW", 1),
            ("ABCBABCBABCBA", 1),
            ("AAAAAAAA", 1),
            ("ABC", 1),
            ("ABCABC", 2),
            ("ABCABCA", 2),
            ("ABCABCABC", 3),
            ("XYABCDABCDABCD", 3),
            ("ABCDEABCDEABCDEABC", 3),
        ],
    )
    def test_a_way_that_goes_round_is_told_from_turns_and_hubs(self, way: str, rounds: int) -> None:
        assert rounds_of(way)[0] == rounds

    def test_a_third_round_is_refused(self) -> None:
        second = answer("B", "C", hop=4, chain=tuple("ABCA"))
        third = answer("B", "C", hop=7, chain=tuple("ABCABCA"))
        assert guard(second, LIMITS, FULL)[1].facts["rounds"] == 2
        refused = guard(third, LIMITS, FULL)
        assert last(refused) == (Gate.CYCLE, Verdict.FAIL, Reason.CYCLE_DETECTED)
        assert refused[-1].facts == {"rounds": 3, "agents": 3, "limit": 3}


class TestAutoReply:
    def test_an_automatic_reply_to_a_message_passes(self) -> None:
        assert guard(answer(is_auto_reply=True), LIMITS, FULL)[0].verdict is Verdict.PASS

    @pytest.mark.parametrize("sender", ["A", None])
    def test_an_automatic_reply_to_an_automatic_reply_is_refused(self, sender: str | None) -> None:
        looping = passage(sender, auto_to_auto=True, reply_to=PARENT, thread_id=THREAD, is_auto_reply=True)
        assert last(guard(looping, LIMITS)) == (Gate.AUTO_REPLY, Verdict.FAIL, Reason.AUTO_REPLY_TO_AUTO_REPLY)


class TestBudgets:
    def test_an_exhausted_pair_refuses_and_says_when_to_come_back(self) -> None:
        refused = guard(answer(), LIMITS, (BudgetFact(admits=False, retry_after_s=12.5), FULL[1]))
        assert last(refused) == (Gate.PAIR_BUDGET, Verdict.FAIL, Reason.PAIR_BUDGET_EXHAUSTED)
        assert refused[-1].facts == {"limit": 60, "window_s": 60, "retry_after_s": 12.5}

    def test_an_exhausted_thread_refuses(self) -> None:
        refused = guard(answer(), LIMITS, (FULL[0], BudgetFact(admits=False, retry_after_s=1)))
        assert last(refused) == (Gate.THREAD_BUDGET, Verdict.FAIL, Reason.THREAD_BUDGET_EXHAUSTED)

    def test_unknown_budgets_refuse_nothing_and_say_so(self) -> None:
        unknown = guard(answer(), LIMITS, None)[2:]
        assert [(each.verdict, each.reason) for each in unknown] == [(Verdict.PASS, Reason.BUDGET_UNKNOWN)] * 2

    def test_a_probe_says_that_it_is_one(self) -> None:
        [probe] = guard(passage(), LIMITS, (BudgetFact(admits=True, is_probe=True),))
        assert (probe.verdict, probe.facts["probe"]) == (Verdict.PASS, True)

    def test_the_guards_part_of_a_trace_can_be_told(self) -> None:
        trace = guard(answer(), LIMITS, FULL)
        assert guard_answers(trace) == trace
