"""Receipts are read off the events, and never say more than those do."""

from dataclasses import replace

import pytest

from contracts.events import Event, Released, Replayed
from contracts.words import Channel, State
from router.execution import TABLE
from router.explain import instant
from router.receipts import STAGES, first_at, receipts
from tests.builders import (
    FALLBACK,
    WAYS,
    accepted,
    after,
    attempt_failed,
    claimed,
    decision,
    fell_back,
    history,
    in_context,
    leased,
    marked,
    message,
    offered,
    outcome_recorded,
    wish,
)

LIVE, BG, INBOX = Channel.LIVE, Channel.BG, Channel.INBOX


def stages(*events: Event) -> list[tuple[str, str | None]]:
    return [(each["stage"], each["channel"]) for each in receipts(history(*events))]


def test_a_live_message_is_offered_then_claimed_then_done() -> None:
    told = stages(accepted(LIVE), claimed(), outcome_recorded())
    assert told == [
        ("accepted", None),
        ("routed", "live"),
        ("offered", "live"),
        ("claimed", "live"),
        ("outcome", "live"),
    ]


def test_what_is_claimed_or_leased_is_in_context_when_its_holder_says_so() -> None:
    assert stages(accepted(LIVE), claimed(), in_context(), outcome_recorded())[3:] == [
        ("claimed", "live"),
        ("in_context", "live"),
        ("outcome", "live"),
    ]
    told = receipts(history(accepted(BG), leased(), in_context(1), attempt_failed(), leased(2, 9)))
    assert [(each["stage"], each["detail"]) for each in told[3:]] == [
        ("in_context", {"lease": 1}),
        ("leased", {"number": 2, "holder": "host-1"}),
    ]


def test_an_offer_is_an_offer_and_no_delivery() -> None:
    assert stages(accepted(LIVE))[-1] == ("offered", "live")
    assert stages(accepted(decision(LIVE, waits=True))) == [("accepted", None), ("routed", "live")]
    assert stages(accepted(decision(LIVE, waits=True)), offered())[-1] == ("offered", "live")


def test_a_fallback_changes_the_channel_of_what_follows() -> None:
    told = stages(accepted(decision(LIVE, FALLBACK)), fell_back(), leased(), attempt_failed(), leased(2, 9))
    assert told[3:] == [("fell_back", "bg"), ("leased", "bg"), ("leased", "bg")]


def test_what_a_poll_gave_out_is_not_read_yet() -> None:
    assert stages(accepted(INBOX), marked())[-1] == ("handed_out", "inbox")
    assert stages(accepted(INBOX), marked(), marked(State.INBOX_READ))[-1] == ("read", "inbox")


def test_a_scheduled_message_is_routed_when_its_time_comes() -> None:
    waiting = accepted(decision())
    waiting = replace(waiting, message=message(wish=wish(send_at=after(60))))
    released = Released(at=after(60), by="router-1", decision=decision(BG))
    assert stages(waiting) == [("accepted", None), ("scheduled", None)]
    assert receipts(history(waiting))[1]["detail"] == {"send_at": instant(after(60))}
    assert stages(waiting, released)[2:] == [("routed", "bg")]


def test_a_replay_is_another_execution() -> None:
    replayed = Replayed(
        at=after(20), by="key:k", execution=2, decision=decision(INBOX), agent_id="a", expires_at=after(99)
    )
    told = receipts(history(*WAYS[State.BG_EXHAUSTED], replayed))
    assert [(each["stage"], each["execution"]) for each in told[-2:]] == [("ended", 1), ("routed", 2)]
    assert first_at(told, "routed") == instant(after(20))
    assert first_at(told, "leased") is None


@pytest.mark.parametrize("state", [state for state in TABLE if state in WAYS])
def test_every_way_is_told_in_known_stages_from_its_beginning(state: State) -> None:
    events = WAYS[state]
    told = receipts(history(*events))
    assert told[0]["stage"] == "accepted"
    assert {each["stage"] for each in told} <= set(STAGES)
    assert [each["at"] for each in told] == sorted(each["at"] for each in told)
    assert told[-1]["at"] <= (instant(events[-1].at) or "")
