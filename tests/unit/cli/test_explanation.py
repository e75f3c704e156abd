"""What `explain` prints, from a view to the lines a person reads."""

import io
from typing import Any

import pytest
from rich.console import Console

from cli.explanation import message_lines, route_lines, trace_table


def printed(*lines: Any) -> str:
    out = io.StringIO()
    console = Console(file=out, width=160, highlight=False)
    for line in lines:
        console.print(line)
    return out.getvalue()


def gate(verdict: str, **changes: Any) -> dict[str, Any]:
    return {
        "gate": "heartbeat_fresh",
        "channel": "live",
        "verdict": verdict,
        "reason": "heartbeat_stale",
        "facts": {"age_s": 301.04, "max_age_s": 120},
    } | changes


def view(**changes: Any) -> dict[str, Any]:
    """A message that fell back to background because its session's heartbeat was stale."""
    plan = [{"channel": "bg", "mode": "background_fallback"}]
    return {
        "id": "msg_1",
        "execution_id": "exec_1",
        "to": {"slug": "cue-mac-app", "owner": "max"},
        "subject": "Quick question",
        "delivery_mode": "live",
        "live_fallback_mode": "background",
        "effective_delivery_mode": "background_fallback",
        "delivery_route": "background_fallback",
        "state": "delivered",
        "reason": "outcome_reported",
        "terminal": True,
        "accepted_at": "2026-01-01T00:00:00.000Z",
        "ended_at": "2026-01-01T00:00:01.250Z",
        "deadline_at": None,
        "outcome": {"success": True, "executed_via": "bg", "route": "background_fallback", "route_reason": None},
        "trace": [gate("fail")],
        "events": [
            {
                "seq": 1,
                "at": "2026-01-01T00:00:00.000Z",
                "by": "key:k",
                "type": "accepted",
                "decision": {"plan": plan},
            },
            {"seq": 2, "at": "2026-01-01T00:00:01.250Z", "by": "router:r", "type": "ended", "state": "x\x1b[31m"},
        ],
    } | changes


def test_a_fallback_is_explained_from_the_wish_to_the_end() -> None:
    text = printed(*message_lines(view()))
    assert 'msg_1 → cue-mac-app@max  "Quick question"' in text
    assert "asked live, else background · went background_fallback · route background_fallback" in text
    assert "plan  1 bg as background_fallback" in text
    assert "age_s=301.0 max_age_s=120" in text
    assert "+1.250 s" in text
    assert "ended  delivered (outcome_reported) after 1.250 s · success · executed via bg" in text


def test_a_chosen_receiver_is_explained_by_what_was_asked_and_who_else_there_was() -> None:
    facts = {
        "project": "max",
        "where": {"kind": "llm", "capabilities.model": ["haiku", None]},
        "pick": "one",
        "considered": 9,
        "matched": 4,
        "reachable": 3,
        "rank": 1,
        "presence": "online",
        "open_executions": 0,
        "runners_up": [{"agent_id": "agent_1", "slug": "b", "presence": None, "open_executions": None}],
    }
    chosen = gate("pass", gate="selection", channel=None, reason="chosen", facts=facts)
    text = printed(*message_lines(view(trace=[chosen, gate("fail")])))
    assert "chosen in max where kind is llm and capabilities.model is haiku or None" in text
    assert "1 of 3 that can be reached, 4 that fit, 9 looked at · online, 0 open" in text
    assert "then b (presence unknown, ? open)" in text


@pytest.mark.parametrize(("verdict", "mark"), [("pass", "✓"), ("wait", "…"), ("fail", "✗")])
def test_each_verdict_has_its_mark(verdict: str, mark: str) -> None:
    assert mark in printed(trace_table([gate(verdict)]))


def test_what_a_sender_wrote_never_reaches_the_terminal_as_a_control_sequence() -> None:
    text = printed(*message_lines(view(subject="\x1b[2Jgone\nsecond [red]line")))
    assert "\x1b" not in text
    assert "second [red]line" in text


def test_an_outcome_that_is_not_believed_says_why() -> None:
    doubted = {"success": True, "executed_via": "live", "route": "live_unverified", "route_reason": "no_live_claim"}
    assert "route live_unverified (no_live_claim)" in printed(*message_lines(view(outcome=doubted)))


def test_an_open_message_says_until_when() -> None:
    text = printed(*message_lines(view(terminal=False, outcome=None, deadline_at="2026-01-01T00:00:30.000Z")))
    assert "open  until 2026-01-01T00:00:30.000Z" in text


def test_an_attempt_to_come_says_when() -> None:
    waiting = {"terminal": False, "deadline_at": "2026-01-02T00:00:00.000Z", "retry_at": "2026-01-01T00:00:10.000Z"}
    text = printed(*message_lines(view(**waiting)))
    assert "open  until 2026-01-02T00:00:00.000Z · next attempt at 2026-01-01T00:00:10.000Z" in text


def test_an_answer_says_who_sent_it_what_led_to_it_and_what_became_of_its_priority() -> None:
    told = view(
        reply_to="msg_0",
        hop=2,
        chain=["agent_a", "agent_b"],
        auto_reply=True,
        priority=3,
        priority_downgraded=True,
        **{"from": {"owner": "zoe", "agent_id": "agent_b", "slug": "writer", "key_id": "k"}},
    )
    text = printed(*message_lines(told))
    assert "from writer@zoe · answers msg_0, hop 2 · an automatic reply · priority 3, lowered" in text
    assert "chain  agent_a → agent_b" in text


def test_a_message_that_nothing_led_to_has_no_line_for_it() -> None:
    plain = view(chain=[], auto_reply=False, priority=3, priority_downgraded=False, reply_to=None)
    assert printed(*message_lines(plain)) == printed(*message_lines(view()))


def test_a_route_to_nowhere_says_so() -> None:
    nowhere: dict[str, Any] = {
        "to": {"slug": "a", "owner": "max"},
        "delivery_mode": "live",
        "live_fallback_mode": "none",
        "effective_delivery_mode": None,
        "state": "live_unclaimed_no_session",
        "reason": "no_session_attached",
        "plan": [],
        "trace": [],
    }
    text = printed(*route_lines(nowhere))
    assert "a@max  would be sent nowhere" in text
    assert "plan  (nothing to try)" in text


def test_a_discarded_message_is_shown_with_the_reason_somebody_gave() -> None:
    told = {"reason": "The customer has called.", "by": "key:k", "at": "2026-01-31T09:00:02.000Z"}
    text = printed(
        *message_lines(view(state="discarded", reason="discarded_by_receiver", outcome=None, discarded=told))
    )
    assert "discarded (discarded_by_receiver)" in text
    assert "discarded: The customer has called." in text
