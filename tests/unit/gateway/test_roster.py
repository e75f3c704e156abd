"""Roster entries: few words that hold for a while, and ETags that change with them."""

from datetime import timedelta

import pytest

from contracts.records import Agent, Profile
from contracts.words import WorkStyle
from gateway.etags import is_known, weak_etag
from gateway.presence import presence_of
from gateway.roster import MAX_DESCRIPTION, roster_entry
from tests.builders import BG, INBOX, NOW, agent


def entry(recipient: Agent, age_s: float = 1) -> dict[str, object]:
    return roster_entry(recipient, presence_of(recipient, [NOW - timedelta(seconds=age_s)], NOW))


def test_an_entry_says_the_same_until_the_next_wide_word() -> None:
    recipient = agent(BG)
    assert entry(recipient, 1) == entry(recipient, 119)
    assert entry(recipient, 301) == entry(recipient, 1_799)
    assert entry(recipient, 119) != entry(recipient, 301)


def test_what_an_agent_does_not_say_is_told_from_what_it_is() -> None:
    told = entry(agent(INBOX))
    assert (told["name"], told["display_name"], told["description"]) == ("receiver", "receiver", None)
    assert (told["preferred_contact"], told["preferred_channel"]) == ("async", None)
    assert entry(agent(BG, preferred_contact=BG))["preferred_contact"] == "sync"


def test_what_an_agent_says_of_itself_goes_first() -> None:
    profile = Profile(display_name="Mac app", specialization="staging", work_style=WorkStyle.ASYNC)
    assert entry(agent(BG, profile=profile))["description"] == "staging"
    told = entry(agent(BG, profile=profile, metadata={"description": "x" * 1_000}))
    assert (told["display_name"], told["preferred_contact"]) == ("Mac app", "async")
    assert told["description"] == "x" * MAX_DESCRIPTION


ETAG = weak_etag(["content"])


@pytest.mark.parametrize("header", [ETAG, ETAG.removeprefix("W/"), f'"other", {ETAG}', "*"])
def test_an_etag_is_known_however_it_is_listed(header: str) -> None:
    assert is_known(header, ETAG)


@pytest.mark.parametrize("header", [None, "", '"other"', 'W/"', ETAG[:-2]])
def test_another_etag_is_not(header: str | None) -> None:
    assert not is_known(header, ETAG)


def test_an_etag_is_weak_and_has_sixteen_digits() -> None:
    assert ETAG.startswith('W/"')
    assert len(ETAG) == 20
    assert weak_etag(["content"]) == ETAG != weak_etag(["another"])
