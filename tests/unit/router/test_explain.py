"""The views: their shape as docs/api.md promises it, and JSON values all the way down."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.events import AttemptFailed, Event, FellBack
from contracts.records import Context
from contracts.words import AttestationLevel, DeliveryRoute, FallbackMode, OutcomeState, Reason, State
from router.deadlines import close_window
from router.decision import decide
from router.execution import fold
from router.explain import decision_view, event_views, instant, message_view, plain, trace_view
from tests.builders import (
    BG,
    FALLBACK,
    LIVE,
    NO_SESSION,
    NOW,
    TTL_S,
    ULID,
    WAYS,
    WEBHOOK,
    accepted,
    after,
    agent,
    attempt_failed,
    claimed,
    decision,
    ended,
    evidence_added,
    execution_in,
    history,
    in_context,
    leased,
    message,
    outcome,
    outcome_recorded,
    question,
    released,
    replayed,
    scheduled,
    wish,
)

API = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
TO_THE_MILLISECOND = datetime(2026, 1, 2, 3, 4, 5, 6_999, tzinfo=UTC)


def view(*events: Event, trace: bool = True) -> dict[str, Any]:
    told = history(*events)
    return message_view(told, fold(told), trace=trace)


def strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a view with the name it stands under."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from strings(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each, name)
    elif isinstance(value, str):
        yield name, value


def promised(opening: str) -> set[str]:
    """The top-level fields of the JSON example in docs/api.md that begins with `opening`."""
    example = API[API.index(opening) :]
    depth, fields = 0, set()
    for match in re.finditer(r'[{}\[\]]|"(\w+)":', example):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(match[0], 0)
        if match[1] and depth == 1:
            fields.add(match[1])
        if depth == 0:
            return fields
    raise AssertionError("the example does not end")


class TestMessageView:
    def test_it_has_the_fields_the_documentation_promises(self) -> None:
        missing = promised('{"id": "msg_…"') - set(view(accepted(LIVE)))
        assert missing == set()

    def test_it_has_no_field_the_documentation_does_not_know(self) -> None:
        undocumented = {name for name in view(accepted(LIVE)) if name not in API}
        assert undocumented <= {"last_error"}

    def test_it_says_who_wrote_to_whom_and_what_was_asked(self) -> None:
        seen = view(accepted(BG))
        assert seen["id"] == f"msg_{ULID}"
        assert seen["execution_id"] == f"exec_{ULID}"
        assert seen["to"] == {"agent_id": "agent_receiver0000", "slug": "receiver", "owner": "max"}
        assert seen["from"] == {"owner": "ada", "agent_id": None, "slug": None, "key_id": "key_ada"}
        assert (seen["delivery_mode"], seen["live_fallback_mode"]) == ("auto", "background")

    def test_an_open_message_says_when_somebody_has_to_act(self) -> None:
        seen = view(accepted(decision(LIVE, FALLBACK)))
        assert (seen["state"], seen["terminal"], seen["ended_at"]) == ("offered", False, None)
        assert seen["deadline_at"] == "2026-03-04T05:06:37.890Z"

    def test_a_claim_shows_who_claimed_and_how_strongly_and_nothing_of_the_session(self) -> None:
        seen = view(accepted(LIVE), claimed(level=AttestationLevel.TOKEN_NONCE))
        assert seen["claim"] == {"label": "main", "level": "token+nonce", "claimed_at": "2026-03-04T05:06:09.890Z"}

    def test_a_lease_shows_its_number_and_its_holder(self) -> None:
        seen = view(accepted(BG), leased())
        assert set(seen["lease"]) == {"number", "holder", "leased_at", "expires_at"}
        assert (seen["lease"]["number"], seen["attempts"], seen["max_attempts"]) == (1, 1, 3)

    def test_an_attempt_to_come_says_when(self) -> None:
        waiting = view(accepted(BG), leased(), attempt_failed())
        assert (waiting["state"], waiting["retry_at"]) == ("queued", "2026-03-04T05:06:13.890Z")
        over = view(accepted(BG), leased(), attempt_failed(), ended(State.EXPIRED))
        assert [each["retry_at"] for each in (view(accepted(BG)), over)] == [None, None]

    def test_what_its_holder_has_in_context_says_since_when(self) -> None:
        assert view(accepted(LIVE), claimed())["in_context_at"] is None
        assert view(accepted(LIVE), claimed(), in_context())["in_context_at"] == instant(after(4))

    def test_an_outcome_shows_the_reporters_word_beside_ours(self) -> None:
        told = outcome(
            DeliveryRoute.LIVE_UNVERIFIED,
            executed_via="live",
            route_reason="no_live_claim",
            evidence={"summary": "merged"},
            state=OutcomeState.REPORTED_SUCCESS,
        )
        seen = view(accepted(LIVE), outcome_recorded(told))
        assert seen["delivery_route"] == "live_unverified"
        assert seen["outcome"] == {
            "success": True,
            "result": "done",
            "error": None,
            "metadata": {},
            "executed_via": "live",
            "route": "live_unverified",
            "route_reason": "no_live_claim",
            "recorded_at": seen["ended_at"],
            "state": "reported_success",
            "evidence": {"summary": "merged"},
        }

    def test_an_outcome_shows_what_it_is_worth_by_now(self) -> None:
        told = outcome(evidence={"summary": "merged"}, state=OutcomeState.VERIFICATION_FAILED)
        seen = view(accepted(BG), leased(), outcome_recorded(told), evidence_added({"external_id": "pr-7"}))["outcome"]
        assert (seen["state"], seen["evidence"]) == ("verified_success", {"summary": "merged", "external_id": "pr-7"})

    def test_a_message_that_answers_nothing_is_its_own_thread(self) -> None:
        assert view(accepted(BG))["thread_id"] == f"msg_{ULID}"

    def test_an_answer_shows_its_thread_and_what_it_answers(self) -> None:
        context = Context(
            thread_id="msg_a",
            reply_to="msg_b",
            correlation_id="c",
            priority=5,
            priority_downgraded=True,
            hop=2,
            chain=("agent_a", "agent_b"),
            is_auto_reply=True,
        )
        seen = view(accepted(BG, message=message(context=context)))
        assert (seen["priority_downgraded"], seen["auto_reply"]) == (True, True)
        assert seen["chain"] == ["agent_a", "agent_b"]
        assert {name: seen[name] for name in ("thread_id", "reply_to", "correlation_id", "priority", "hop")} == {
            "thread_id": "msg_a",
            "reply_to": "msg_b",
            "correlation_id": "c",
            "priority": 5,
            "hop": 2,
        }

    def test_a_scheduled_message_says_when_it_will_be_sent_and_no_way_yet(self) -> None:
        seen = view(scheduled())
        assert seen["send_at"] == seen["deadline_at"] == "2026-03-04T06:06:07.890Z"
        assert (seen["state"], seen["reason"], seen["terminal"]) == ("scheduled", "scheduled", False)
        assert (seen["effective_delivery_mode"], seen["delivery_route"], seen["trace"]) == (None, None, [])

    def test_a_replay_shows_its_own_execution_and_how_long_it_lasts(self) -> None:
        told = history(*WAYS[State.EXPIRED], replayed(BG, TTL_S))
        new, old = message_view(told, fold(told)), message_view(told, fold(told, 1))
        assert (new["id"], new["execution_id"]) == (old["id"], f"{old['execution_id']}r2")
        assert (new["state"], new["expires_at"]) == ("queued", instant(after(2 * TTL_S)))
        assert (old["state"], old["expires_at"]) == ("expired", instant(after(TTL_S)))

    def test_a_message_in_a_list_has_no_trace_and_is_otherwise_the_same(self) -> None:
        whole = view(accepted(BG))
        assert view(accepted(BG), trace=False) == {name: whole[name] for name in whole if name != "trace"}

    def test_a_message_that_ended_at_once_used_no_mode_just_as_its_dry_run_says(self) -> None:
        over = decide(wish(LIVE, FallbackMode.NONE), question(agent(LIVE), NO_SESSION))
        seen = view(accepted(over))
        assert seen["effective_delivery_mode"] is decision_view(over)["effective_delivery_mode"] is None
        assert (seen["state"], seen["reason"]) == ("live_unclaimed_no_session", "no_session_attached")

    @pytest.mark.parametrize("state", list(State))
    def test_it_is_json_and_its_instants_end_in_z(self, state: State) -> None:
        seen = view(*WAYS[state])
        assert json.loads(json.dumps(seen, allow_nan=False)) == seen
        instants = [text for name, text in strings(seen) if name.endswith(("_at", "_before"))]
        assert instants
        assert all(INSTANT.match(text) for text in instants)

    @pytest.mark.parametrize("state", list(State))
    def test_no_string_in_it_is_an_instant_written_another_way(self, state: State) -> None:
        assert not [
            text for _, text in strings([view(*WAYS[state]), event_views(history(*WAYS[state]))]) if "+00" in text
        ]


class TestDecisionView:
    def test_it_has_the_fields_the_documentation_promises_apart_from_the_addressee(self) -> None:
        seen = decision_view(decide(wish(), question(agent(LIVE, BG))))
        assert set(seen) == promised('{"to": {…}, "delivery_mode"') - {"to", "delivery_mode", "live_fallback_mode"}

    def test_it_tells_the_plan_and_what_comes_first(self) -> None:
        seen = decision_view(decide(wish(), question(agent(LIVE, BG))))
        assert (seen["effective_delivery_mode"], seen["state"], seen["reason"]) == ("live", "offered", "ok")
        assert seen["plan"] == [
            {"channel": "live", "mode": "live"},
            {"channel": "bg", "mode": "background_fallback"},
        ]

    def test_a_rejection_has_an_empty_plan_and_its_reason(self) -> None:
        seen = decision_view(decide(wish(WEBHOOK), question(agent(BG))))
        assert (seen["effective_delivery_mode"], seen["state"], seen["plan"]) == (None, "rejected", [])
        assert seen["reason"] == "capability_not_declared"

    def test_the_trace_is_the_one_the_message_shows(self) -> None:
        decided = decide(wish(), question(agent(LIVE, BG)))
        assert decision_view(decided)["trace"] == view(accepted(decided))["trace"] == trace_view(decided.trace)
        assert set(decision_view(decided)["trace"][0]) == {"gate", "channel", "verdict", "reason", "facts"}


class TestEventViews:
    @pytest.mark.parametrize("state", list(State))
    def test_each_event_has_its_sequence_its_instant_its_author_and_its_kind(self, state: State) -> None:
        told = history(*WAYS[state])
        seen = event_views(told)
        assert [each["seq"] for each in seen] == [stored.seq for stored in told.events]
        assert [each["type"] for each in seen] == [stored.event.type for stored in told.events]
        assert all(each["by"] and INSTANT.match(each["at"]) for each in seen)
        assert json.loads(json.dumps(seen, allow_nan=False)) == seen

    def test_the_acceptance_shows_the_decision_and_leaves_the_message_out(self) -> None:
        [seen] = event_views(history(accepted(BG)))
        assert "message" not in seen
        assert seen["decision"]["plan"] == [{"channel": "bg", "mode": "bg"}]

    def test_a_scheduled_acceptance_shows_that_nothing_is_decided_yet(self) -> None:
        [seen] = event_views(history(scheduled()))
        assert seen["decision"] == {
            "effective_delivery_mode": None,
            "state": "scheduled",
            "reason": "scheduled",
            "plan": [],
            "trace": [],
        }

    @pytest.mark.parametrize(
        "events", [(scheduled(), released()), (*WAYS[State.EXPIRED], replayed())], ids=["released", "replayed"]
    )
    def test_a_decision_taken_later_is_shown_as_the_one_of_an_acceptance(self, events: tuple[Event, ...]) -> None:
        [first] = event_views(history(accepted(BG)))
        assert event_views(history(*events))[-1]["decision"] == first["decision"]

    def test_a_failed_attempt_shows_what_the_worker_said(self) -> None:
        seen = event_views(history(accepted(BG), leased(), attempt_failed()))[-1]
        assert {name: seen[name] for name in ("number", "reason", "detail", "retry_at")} == {
            "number": 1,
            "reason": "attempt_failed",
            "detail": "exit 1",
            "retry_at": "2026-03-04T05:06:13.890Z",
        }
        # What a receiver answered is its owner's to see, in the list of attempts.
        assert set(AttemptFailed.__dataclass_fields__) - set(seen) == {"answer"}

    def test_a_fallback_shows_its_step_and_the_closed_window(self) -> None:
        fell = close_window(execution_in(State.OFFERED), None, after(31), "router-1")
        assert isinstance(fell, FellBack)
        seen = event_views(history(accepted(decision(LIVE, FALLBACK)), fell))[-1]
        assert seen["step"] == {"channel": "bg", "mode": "background_fallback"}
        assert seen["trace"][0]["reason"] == "claim_window_closed"


def test_an_instant_is_cut_to_the_millisecond_and_never_rounded_into_the_future() -> None:
    assert instant(TO_THE_MILLISECOND) == "2026-01-02T03:04:05.006Z"
    assert instant(None) is None


def test_instants_sort_like_the_strings_they_become() -> None:
    instants = [after(seconds) for seconds in (-86_400, 0, 0.001, 1, 59, 3_600, 10**8)]
    written = [instant(each) or "" for each in instants]
    assert written == sorted(written)


def test_records_become_plain_json_values() -> None:
    told = outcome_recorded(outcome(metadata={"when": [NOW], "why": Reason.OK, "pair": (1, 2)}))
    seen = plain(told)
    assert seen["outcome"]["metadata"] == {"when": ["2026-03-04T05:06:07.890Z"], "why": "ok", "pair": [1, 2]}
    json.dumps(seen, allow_nan=False)
