"""What a request to send says in its headers, and how far ahead it may be sent."""

from datetime import UTC, datetime, timedelta

import pytest

from contracts.errors import Invalid, Malformed
from contracts.records import Context, Sender
from gateway.conversation import chain_after
from gateway.intake import NO_HEADERS, SendHeaders, read_headers, refuse_too_far
from tests.builders import message

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_request_without_our_headers_says_nothing() -> None:
    assert read_headers([(b"host", b"x"), (b"content-type", b"application/json")]) is NO_HEADERS


def test_every_header_is_read_in_both_spellings() -> None:
    ours = [(b"idempotency-key", b"k"), (b"x-postroom-from-agent", b"a"), (b"x-postroom-verify-echo", b"true")]
    theirs = [(b"idempotency-key", b"k"), (b"x-cueapi-from-agent", b"a"), (b"x-cueapi-verify-echo", b"True")]
    assert read_headers(ours) == read_headers(theirs) == SendHeaders("k", "a", verify_echo=True)


def test_a_header_may_be_sent_once_whichever_its_spelling() -> None:
    with pytest.raises(Malformed) as caught:
        read_headers([(b"x-postroom-from-agent", b"a"), (b"x-cueapi-from-agent", b"b")])
    assert caught.value.code == "duplicate_header"


def test_a_message_may_be_sent_366_days_ahead_and_not_a_second_more() -> None:
    refuse_too_far(NOW - timedelta(days=1_000), NOW)
    refuse_too_far(NOW + timedelta(days=366), NOW)
    with pytest.raises(Invalid) as caught:
        refuse_too_far(NOW + timedelta(days=366, seconds=1), NOW)
    assert (caught.value.code, caught.value.facts["field"]) == ("out_of_range", "send_at")


def test_a_chain_names_the_senders_before_and_forgets_the_oldest() -> None:
    sender = Sender(owner="ada", key_id="k", agent_id="agent_last00000000")
    chain = tuple(f"agent_{n:012d}" for n in range(16))
    longest = message(sender=sender, context=Context(chain=chain))
    assert chain_after(longest) == (*chain[1:], "agent_last00000000")
    assert chain_after(message()) == ()
