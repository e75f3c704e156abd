"""What owners are told of a message: which events, to whom, when it has been delivered, and under which ids."""

from dataclasses import replace

import pytest

from contracts.events import Event
from contracts.records import Sender
from contracts.tenant_events import DERIVED_FAMILIES, EventType, TenantEvent
from contracts.words import Channel, DeliveryRoute, Reason, State
from router.derivation import Facts, derive, facts_before
from tests import builders as make

MESSAGE_ID = f"msg_{make.ULID}"


def told_to_all(*events: Event) -> list[TenantEvent]:
    facts: Facts | None = None
    found: list[TenantEvent] = []
    for stored in make.history(*events).events:
        facts, more = derive(facts, make.ULID, stored)
        found += more
    return found


def told(*events: Event) -> list[TenantEvent]:
    """What the receiving owner is told."""
    return [event for event in told_to_all(*events) if event.owner == make.message().agent_owner]


def types(*events: Event) -> list[str]:
    return [event.type.value for event in told(*events)]


def foreign(accepted: Event, sender: str = "zoe") -> Event:
    """The same message from another owner."""
    assert accepted.type == "accepted"
    return replace(accepted, message=replace(accepted.message, sender=Sender(owner=sender, key_id="k")))


def test_an_inbox_message_is_delivered_when_it_lies_there() -> None:
    assert types(make.accepted(Channel.INBOX), make.marked(), make.marked(State.INBOX_READ)) == [
        "message.accepted",
        "message.delivered",
        "message.read",
    ]


def test_a_live_message_is_delivered_when_it_is_claimed() -> None:
    assert types(make.accepted(Channel.LIVE), make.claimed(), make.outcome_recorded(DeliveryRoute.LIVE)) == [
        "message.accepted",
        "execution.offered",
        "execution.claimed",
        "message.delivered",
        "execution.outcome",
    ]


def test_that_a_message_is_in_context_is_told_with_the_lease_it_was_said_under() -> None:
    [told_live] = told(make.accepted(Channel.LIVE), make.claimed(), make.in_context())[4:]
    [told_bg] = told(make.accepted(Channel.BG), make.leased(), make.in_context(1))[3:]

    assert told_live.type is told_bg.type is EventType.EXECUTION_IN_CONTEXT
    assert (told_live.data["number"], told_bg.data["number"]) == (None, 1)


def test_background_work_is_delivered_with_its_first_lease_only() -> None:
    life: list[Event] = [
        make.accepted(Channel.BG),
        make.leased(1),
        make.extended(1),
        make.attempt_failed(1),
        make.leased(2),
    ]

    assert types(*life, make.outcome_recorded()) == [
        "message.accepted",
        "execution.leased",
        "message.delivered",
        "execution.attempt_failed",
        "execution.leased",
        "execution.outcome",
    ]


def test_a_webhook_is_delivered_when_its_receiver_answered() -> None:
    life: list[Event] = [make.accepted(Channel.WEBHOOK), make.leased(1), make.outcome_recorded(DeliveryRoute.WEBHOOK)]

    assert types(*life) == ["message.accepted", "execution.leased", "message.delivered", "execution.outcome"]


def test_an_offer_nobody_claims_falls_back_and_may_end_undelivered() -> None:
    life: list[Event] = [make.accepted(make.decision(Channel.LIVE, make.FALLBACK)), make.fell_back()]

    assert types(*life, make.ended(State.EXPIRED)) == [
        "message.accepted",
        "execution.offered",
        "execution.fell_back",
        "execution.ended",
        "message.dead_lettered",
    ]


def test_whoever_gave_up_is_told_apart_from_whoever_meant_it_and_a_discard_is_told_as_well() -> None:
    cancelled = told(make.accepted(Channel.BG), make.ended(State.CANCELLED, Reason.CANCELLED_BY_SENDER))
    *_, dead, discarded = told(make.accepted(Channel.BG), make.ended(State.EXPIRED), make.discarded(reason="late"))

    assert cancelled[-1].type is EventType.EXECUTION_ENDED
    assert (dead.type, dead.data["state"]) == (EventType.MESSAGE_DEAD_LETTERED, "expired")
    assert (discarded.type, discarded.data["discard_reason"]) == (EventType.MESSAGE_DISCARDED, "late")


def test_a_scheduled_message_says_nothing_of_itself_before_its_time() -> None:
    first, *later = told(make.scheduled(), make.released(Channel.INBOX))

    assert (first.type, first.data["state"]) == (EventType.MESSAGE_ACCEPTED, "scheduled")
    assert "subject" not in first.data
    assert [event.type for event in later] == [EventType.MESSAGE_RELEASED, EventType.MESSAGE_DELIVERED]


def test_a_replay_is_delivered_once_more_as_another_execution() -> None:
    events = told(make.accepted(Channel.INBOX), make.ended(), make.replayed(Channel.INBOX))
    delivered = [event.data["execution_id"] for event in events if event.type is EventType.MESSAGE_DELIVERED]

    assert delivered == [f"exec_{make.ULID}", f"exec_{make.ULID}r2"]


def test_both_owners_are_told_the_same_under_the_same_id() -> None:
    events = told_to_all(foreign(make.accepted(Channel.INBOX)))
    owner = make.message().agent_owner
    ours = [event for event in events if event.owner == owner]
    theirs = [event for event in events if event.owner == "zoe"]

    assert [replace(event, owner=owner) for event in theirs] == ours
    assert len({event.id for event in ours}) == len(ours) == 2


def test_an_event_names_its_message_and_never_its_text() -> None:
    accepted, delivered = told(make.accepted(Channel.INBOX))

    assert accepted.subject == delivered.subject == MESSAGE_ID
    assert accepted.data["message_id"] == MESSAGE_ID
    assert accepted.ledger_seq == delivered.ledger_seq == 10
    assert make.message().body not in str(accepted.data)


@pytest.mark.parametrize("length", range(1, 6))
def test_facts_read_from_the_ledger_are_the_facts_kept_in_memory(length: int) -> None:
    life: list[Event] = [
        make.accepted(Channel.BG),
        make.leased(1),
        make.attempt_failed(1),
        make.leased(2),
        make.outcome_recorded(),
    ]
    history = make.history(*life)
    kept: Facts | None = None
    for stored in history.events[:length]:
        read = facts_before(history, stored.seq)
        assert read == kept
        kept, _ = derive(kept, make.ULID, stored)


def test_derived_types_are_known_by_their_first_word() -> None:
    events = told(make.accepted(Channel.LIVE), make.claimed(), make.outcome_recorded(DeliveryRoute.LIVE))

    assert {event.type.partition(".")[0] for event in events} == set(DERIVED_FAMILIES)
    others = [each for each in EventType if each.partition(".")[0] not in DERIVED_FAMILIES]
    assert {each.partition(".")[0] for each in others}.isdisjoint(DERIVED_FAMILIES)
    assert others


def test_an_event_of_an_unknown_message_is_refused() -> None:
    with pytest.raises(ValueError, match="before the message was accepted"):
        derive(None, make.ULID, make.history(make.accepted(), make.leased()).events[1])
