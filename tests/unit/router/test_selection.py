"""The choice: reachable, present, idle, and then the hash; and what the gate says of it."""

from contracts.words import Gate, PresenceWord, Reason, Verdict
from router.selection import (
    MAX_CANDIDATES,
    Ask,
    Candidate,
    Ranking,
    again_gate,
    facts_of_all,
    ranked,
    sampled,
    selection_gate,
)
from tests.builders import ULID, agent

ONLINE, STALE, OFFLINE = PresenceWord
ASK = Ask(project="max", where={"kind": "llm"}, pick="one")


def candidate(
    name: str, presence: PresenceWord | None = ONLINE, busy: int | None = 0, *, is_reachable: bool = True
) -> Candidate:
    told = agent(id=f"agent_{name:0<12}", slug=name)
    return Candidate(agent=told, presence=presence, open_executions=busy, is_reachable=is_reachable)


def order(*candidates: Candidate) -> list[str]:
    return [each.agent.slug for each in ranked(candidates, ULID)]


def test_presence_counts_before_work_and_reach_before_presence() -> None:
    assert order(
        candidate("gone", OFFLINE),
        candidate("mute", ONLINE, is_reachable=False),
        candidate("late", STALE),
        candidate("busy", ONLINE, 9),
        candidate("idle", ONLINE, 1),
    ) == ["idle", "busy", "late", "gone", "mute"]


def test_what_is_not_known_is_last_and_idle() -> None:
    assert order(candidate("dark", None), candidate("gone", OFFLINE, 1)) == ["dark", "gone"]
    assert order(candidate("dark", None), candidate("late", STALE, 5)) == ["late", "dark"]


def test_the_gate_tells_who_was_chosen_and_who_came_next() -> None:
    rows = (candidate("a"), candidate("b", STALE, 2), *(candidate(name, OFFLINE) for name in "cdef"))
    ranking = Ranking(candidates=rows, considered=40, matched=6)

    gate = selection_gate(ASK, ranking, 1)

    assert (gate.gate, gate.channel, gate.verdict, gate.reason) == (
        Gate.SELECTION,
        None,
        Verdict.PASS,
        Reason.CHOSEN,
    )
    assert gate.facts == {
        "project": "max",
        "where": {"kind": "llm"},
        "pick": "one",
        "considered": 40,
        "matched": 6,
        "reachable": 6,
        "rank": 1,
        "presence": "online",
        "open_executions": 0,
        "runners_up": [
            {"agent_id": "agent_b00000000000", "slug": "b", "presence": "stale", "open_executions": 2},
            {"agent_id": "agent_c00000000000", "slug": "c", "presence": "offline", "open_executions": 0},
            {"agent_id": "agent_d00000000000", "slug": "d", "presence": "offline", "open_executions": 0},
        ],
    }


def test_the_gate_of_a_later_message_says_nothing_it_does_not_know() -> None:
    ask = Ask(project="max", where={"kind": "llm"}, pick="all")
    ranking = Ranking(candidates=(candidate("a"), candidate("b")), considered=2, matched=2, is_whole=False)
    first = selection_gate(ask, ranking, 1, ["agent_a00000000000", "agent_b00000000000"])

    later = again_gate(first, 2)

    assert later.facts["rank"] == 2
    assert (later.facts["presence"], later.facts["open_executions"]) == (None, None)
    assert "recipients" not in later.facts
    assert facts_of_all(first) == facts_of_all(later)
    assert facts_of_all(first)["truncated"] is True


def test_of_very_many_a_sample_is_asked_about_that_is_another_for_each_message() -> None:
    many = [agent(id=f"agent_{n:012}", slug=f"a-{n}") for n in range(3 * MAX_CANDIDATES)]
    once, other = sampled(many, "1"), sampled(many, "2")
    assert len(once) == len(other) == MAX_CANDIDATES
    assert {each.id for each in once} != {each.id for each in other}
    assert [each.id for each in sampled(list(reversed(many)), "1")] == [each.id for each in once]
    assert sampled(many[:MAX_CANDIDATES], "1") == many[:MAX_CANDIDATES]
