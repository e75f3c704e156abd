"""What a look at an agent's sessions comes to: notes in their order, an heir for the default, events behind events."""

from dataclasses import replace

from contracts.freshness import Signs
from contracts.records import LiveSession
from contracts.tenant_events import StoredEvent
from router.presence_turns import noted_stale, past_deadline, stale_event, transition, untold_stale
from tests.builders import NOW, after, agent, session

WORKER = session("worker", transport="worker", attached_at=NOW)
AGENT = agent(heartbeat_age_sec=120)


def signs(at_s: float, **heard_s: float) -> Signs:
    """As of `at_s` seconds after `NOW`; the sessions named were heard of so many seconds after it."""
    return Signs(as_of=after(at_s), heard={f"sess_{name}": after(seconds) for name, seconds in heard_s.items()})


def test_a_session_is_past_its_deadline_a_moment_after_it_and_not_at_it() -> None:
    assert past_deadline([WORKER], signs(90)) == frozenset()
    assert past_deadline([WORKER], signs(90.001)) == {"sess_worker"}
    assert past_deadline([WORKER], signs(90.001, worker=30)) == frozenset()
    assert past_deadline([replace(WORKER, detached_at=NOW)], signs(999)) == frozenset()


def test_the_default_passes_on_to_the_oldest_live_session_that_remains() -> None:
    main, other = session("main", is_default=True), session("other")
    noted = noted_stale((main, WORKER, other), frozenset({"sess_main"}), after(5))
    assert [(each.stale_at, each.is_default) for each in noted] == [(after(5), False), (None, False), (None, True)]


def test_a_session_without_the_default_leaves_it_where_it_is() -> None:
    main = session("main", is_default=True)
    noted = noted_stale((main, WORKER), frozenset({"sess_worker"}), after(5))
    assert [each.is_default for each in noted] == [True, False]


def test_a_note_by_a_clock_that_is_behind_comes_after_those_before_it() -> None:
    earlier = replace(session("earlier"), stale_at=after(60))
    noted = noted_stale((earlier, WORKER), frozenset({"sess_worker"}), after(10))
    told = stored(earlier)
    assert [each.id for each, _ in untold_stale(noted, told)] == ["sess_worker"]


def test_stale_sessions_are_told_in_the_order_of_their_notes_behind_the_one_told_last() -> None:
    first, second = (replace(session(name), stale_at=after(1)) for name in ("b1", "b2"))
    third = replace(session("a"), stale_at=after(2))
    sessions = (third, second, session("here"), first)
    assert [each.id for each, _ in untold_stale(sessions, None)] == ["sess_b1", "sess_b2", "sess_a"]
    assert [each.id for each, _ in untold_stale(sessions, stored(first))] == ["sess_b2", "sess_a"]
    assert untold_stale(sessions, stored(third)) == []


def test_of_an_agent_nothing_was_told_of_only_another_word_than_offline_is_told() -> None:
    assert transition(AGENT, [], signs(1), None, NOW) is None
    event = transition(AGENT, [WORKER], signs(1), None, NOW)
    assert event is not None
    assert (event.data["from"], event.data["to"], event.id) == ("offline", "online", f"evt_{AGENT.id}_presence_0")


def test_a_transition_names_what_was_told_last_and_how_many_sessions_there_are() -> None:
    newest = StoredEvent(seq=17, attributes={"data": {"to": "online"}})
    event = transition(AGENT, [WORKER, session("old", detached_at=NOW)], signs(61), newest, NOW)
    assert event is not None
    assert (event.data["from"], event.data["to"], event.id) == ("online", "stale", f"evt_{AGENT.id}_presence_17")
    assert event.data["sessions"] == {"connected": 1, "overdue": 1}
    assert transition(AGENT, [WORKER], signs(59), newest, NOW) is None


def stored(noted: LiveSession) -> StoredEvent:
    assert noted.stale_at is not None
    data = stale_event(AGENT, noted, noted.stale_at).data
    return StoredEvent(seq=9, attributes={"type": "session.stale", "data": data})
