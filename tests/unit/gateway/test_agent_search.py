"""Which agents fit a search."""

from typing import Any

import pytest

from contracts.records import Profile
from contracts.words import AgentStatus
from gateway.agent_search import AgentSearch
from tests.builders import BG, INBOX, LIVE, agent

AGENT = agent(
    LIVE,
    INBOX,
    slug="cue-mac-app",
    profile=Profile(display_name="Mac App", specialization="Staging promotion", tools=("Shell", "git")),
    metadata={"description": "Looks after releases"},
)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"capability": LIVE},
        {"specialization": "staging"},
        {"tool": "shell"},
        {"status": "active"},
        {"status": "online"},
        *({"q": text} for text in ("MAC-APP", "mac app", "promotion", "releases", "git")),
        {"q": "mac", "tool": "GIT", "capability": INBOX},
    ],
)
def test_an_agent_fits_when_every_word_does(words: dict[str, Any]) -> None:
    assert AgentSearch(**words).fits(AGENT)


@pytest.mark.parametrize(
    "words",
    [
        {"capability": BG},
        {"specialization": "releases"},
        {"tool": "she"},
        {"status": "inactive"},
        {"q": "windows"},
        {"q": "mac", "tool": "ruby"},
    ],
)
def test_one_word_that_does_not_fit_is_enough(words: dict[str, Any]) -> None:
    assert not AgentSearch(**words).fits(AGENT)


def test_the_status_of_the_record_is_not_the_one_that_is_derived() -> None:
    asleep = agent(status=AgentStatus.INACTIVE)
    assert AgentSearch(status="inactive").fits(asleep)
    assert not AgentSearch(status="active").fits(asleep)
    assert AgentSearch(status="offline").asks_presence


def test_cursors_of_different_searches_are_bound_apart() -> None:
    scopes = {AgentSearch(q="a").scope, AgentSearch(tool="a").scope, AgentSearch().scope, AgentSearch(q="b").scope}
    assert len(scopes) == 4
