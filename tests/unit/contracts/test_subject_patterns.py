"""Every subject that can be built belongs to exactly one described family."""

import inspect

import pytest

from contracts import subjects
from contracts.subject_patterns import PATTERNS, families_of
from contracts.subjects import Names
from contracts.words import Channel

ULID, AGENT, EXECUTION = "0" * 26, "agent_abcdefghij12", f"exec_{'0' * 26}r2"
NAMES = Names()
BUILT = {
    "ledger": NAMES.ledger(ULID),
    "moved": NAMES.moved(ULID),
    "events": NAMES.events("max", AGENT, "message.accepted"),
    "directory": NAMES.directory_key("slug.max.a-b"),
    "directory_changed": NAMES.directory_changed,
    "session_attached": NAMES.session_attached,
    "live": subjects.push(Channel.LIVE, AGENT, EXECUTION),
    "bg": subjects.push(Channel.BG, AGENT, EXECUTION),
    "inbox": subjects.push(Channel.INBOX, AGENT, EXECUTION),
    "webhook": subjects.push(Channel.WEBHOOK, AGENT, EXECUTION),
    "echo": subjects.echo(AGENT, f"echo_{ULID}"),
    "heartbeat": subjects.heartbeat("host-1"),
}
BUILDERS = {"push", "echo", "heartbeat"} | {
    *("ledger", "moved", "events", "directory_key", "directory_changed", "session_attached")
}
# Names of streams and of wildcards over families, and questions about a subject.
OTHERS = {"ulid_of_subject", "pushes_of", "agent_of_push", "is_echo", "prefix", "ledger_stream", "ledger_filter"} | {
    "moved_filter",
    *("directory_stream", "directory_bucket", "events_stream", "events_filter"),
}


@pytest.mark.parametrize("family", sorted(PATTERNS))
def test_a_subject_belongs_to_its_own_family_alone(family: str) -> None:
    assert families_of(BUILT[family]) == [family]


def test_a_subject_of_nobody_belongs_to_none() -> None:
    assert families_of("live.agent_1") == families_of("led.x.y") == families_of("_INBOX.x") == []


def test_whatever_builds_a_subject_has_its_family() -> None:
    """A new builder fails here until its family is in the table."""
    functions = {name for name, each in vars(subjects).items() if inspect.isfunction(each)}
    members = {name for name in vars(Names) if not name.startswith("_")}
    assert functions - {"dataclass"} | members == BUILDERS | OTHERS
    assert set(BUILT) == set(PATTERNS)
