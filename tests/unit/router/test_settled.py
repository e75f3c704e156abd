"""What is remembered of decisions, and that a changed record is decided anew."""

from dataclasses import replace

from contracts.records import Wish
from contracts.words import AgentStatus, Reason, State
from router.decision import decide
from router.gates import Question
from router.settled import MAX_REMEMBERED, NOTHING_KNOWN, SettledDecisions
from tests.builders import INBOX, NOW, WEBHOOK, after, agent


def test_the_same_record_and_wish_are_decided_once_and_as_decide_would() -> None:
    settled, recipient = SettledDecisions(), agent(INBOX)
    first = settled.decide(Wish(), recipient, NOW)
    assert settled.decide(Wish(), recipient, after(60)) is first
    assert first == decide(Wish(), Question(recipient=recipient, reach=NOTHING_KNOWN, now=NOW))


def test_another_wish_is_another_decision() -> None:
    settled, recipient = SettledDecisions(), agent(INBOX)
    assert settled.decide(Wish(channel=INBOX), recipient, NOW).ending is None
    assert settled.decide(Wish(channel=WEBHOOK), recipient, NOW).ending is State.REJECTED


def test_a_changed_record_is_decided_anew() -> None:
    settled, recipient = SettledDecisions(), agent(INBOX)
    assert settled.decide(Wish(), recipient, NOW).ending is None
    paused = replace(recipient, status=AgentStatus.INACTIVE)
    assert settled.decide(Wish(), paused, NOW).reason is Reason.AGENT_INACTIVE


def test_the_memory_is_bounded() -> None:
    settled = SettledDecisions()
    for _ in range(MAX_REMEMBERED + 10):
        settled.decide(Wish(), agent(INBOX), NOW)
    assert len(settled) <= MAX_REMEMBERED
