"""A message in the peer's spelling."""

import json
from typing import Any

import pytest
from pydantic_core import to_json

from contracts.events import Event
from contracts.words import Channel, DeliveryRoute, Reason, State
from gateway.peer_views import STATES_OF, delivery_state, is_peers_client, peer_fields, with_peer_fields
from router.execution import fold
from router.explain import instant, message_view
from router.receipts import receipts
from tests.builders import (
    WAYS,
    accepted,
    after,
    claimed,
    history,
    marked,
    outcome,
    outcome_recorded,
)

INBOX = Channel.INBOX


def fields(*events: Event, with_receipts: bool = True) -> dict[str, Any]:
    told = history(*events)
    view = message_view(told, fold(told))
    return peer_fields(view, receipts(told) if with_receipts else None)


def acknowledged(at_s: float = 9) -> Event:
    recorded = outcome_recorded(outcome(DeliveryRoute.INBOX), at_s)
    return type(recorded)(at=recorded.at, by=recorded.by, outcome=recorded.outcome, reason=Reason.ACKNOWLEDGED)


@pytest.mark.parametrize("state", State)
def test_every_state_of_ours_has_a_word_of_theirs(state: State) -> None:
    words = {"queued", "delivering", "delivered", "read", "acked", "expired", "failed"}
    assert delivery_state(state.value, Reason.OK.value) in words
    assert {state for states in STATES_OF.values() for state in states} == set(State)


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (State.WAITING, "queued"),
        (State.OFFERED, "queued"),
        (State.LEASED, "delivering"),
        (State.CLAIMED, "delivered"),
        (State.DELIVERED, "delivered"),
        (State.EXPIRED_UNREAD, "expired"),
        (State.CANCELLED, "failed"),
        (State.BG_EXHAUSTED, "failed"),
    ],
)
def test_a_message_stands_where_they_would_say(state: State, word: str) -> None:
    assert fields(*WAYS[state])["delivery_state"] == word


def test_an_inbox_message_has_the_instant_of_each_step() -> None:
    told = fields(accepted(INBOX), marked(at_s=6), marked(State.INBOX_READ, 7), acknowledged(9))
    assert told["delivery_state"] == "acked"
    assert (told["delivered_at"], told["read_at"], told["acked_at"]) == tuple(instant(after(s)) for s in (6, 7, 9))
    assert told["failed_at"] is None


def test_an_offer_nobody_claimed_was_not_delivered() -> None:
    told = fields(*WAYS[State.OFFERED])
    assert [told[name] for name in ("delivered_at", "read_at", "acked_at", "failed_at")] == [None] * 4


def test_a_claim_is_the_delivery_of_a_live_message() -> None:
    told = fields(*WAYS[State.OFFERED], claimed(2))
    assert told["delivered_at"] == instant(after(2))


def test_without_receipts_nothing_is_said_that_they_would_not_say() -> None:
    for state, events in WAYS.items():
        known, short = fields(*events), fields(*events, with_receipts=False)
        differing = {name for name in known if known[name] != short[name]}
        assert differing <= {"delivered_at", "read_at"}, state
        assert all(short[name] is None for name in differing), state


def test_a_failure_says_when_and_why() -> None:
    told = fields(*WAYS[State.BG_EXHAUSTED])
    assert told["failed_at"] == instant(after(8))


def test_a_preview_is_the_first_200_characters() -> None:
    view = message_view(history(accepted(INBOX)), fold(history(accepted(INBOX))))
    assert peer_fields({**view, "message": "ü" * 300})["preview"] == "ü" * 200


def test_a_stored_view_gets_the_fields_behind_its_own() -> None:
    view = message_view(history(accepted(INBOX)), fold(history(accepted(INBOX))), trace=False)
    assert json.loads(with_peer_fields(to_json(view))) == {**view, **peer_fields(view), "to": "receiver@max"}


def test_their_clients_are_known_by_what_they_send() -> None:
    assert is_peers_client([(b"user-agent", b"cueapi-python/0.1.0")])
    assert is_peers_client([(b"x-cueapi-from-agent", b"a")])
    assert not is_peers_client([(b"user-agent", b"python-httpx/0.28"), (b"x-postroom-from-agent", b"a")])
