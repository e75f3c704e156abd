"""What an outcome report is worth in every state."""

from dataclasses import replace
from typing import Any

import pytest

from contracts.records import Outcome
from contracts.words import TERMINAL_STATES, Channel, DeliveryRoute, EffectiveMode, State
from router.execution import Execution, apply
from router.reports import Report, Unacceptable, background_route, judge, same_content
from tests.builders import (
    FALLBACK,
    INBOX,
    LIVE,
    NOW,
    WEBHOOK,
    WINDOW_S,
    accepted,
    after,
    attempt_failed,
    decision,
    execution,
    execution_in,
    fell_back,
    leased,
    outcome,
    outcome_recorded,
)

OFFERED = execution_in(State.OFFERED)
LATE = after(WINDOW_S + 0.001)


def report(via: str | None = None, lease: int | None = None, **changes: Any) -> Report:
    return Report(**{"success": True, "result": "done", "executed_via": via, "lease": lease, **changes})


def result(of: Report, at: Execution, now: Any = NOW) -> str:
    """The route an outcome is stored with, or the code of the refusal."""
    verdict = judge(of, at, now)
    if isinstance(verdict, Unacceptable):
        return verdict.code
    return verdict.route.value if verdict.route else "no route"


def test_an_outcome_keeps_every_word_of_its_report() -> None:
    said = report("live", success=False, result={"a": 1}, error="no", metadata={"k": [1]})
    assert judge(said, execution_in(State.CLAIMED), NOW) == Outcome(
        success=False,
        result={"a": 1},
        error="no",
        metadata={"k": [1]},
        executed_via="live",
        route=DeliveryRoute.LIVE,
    )


class TestOffered:
    @pytest.mark.parametrize(("now", "expected"), [(after(WINDOW_S), "live_unverified"), (LATE, "claim_window_closed")])
    def test_live_without_a_claim_is_stored_as_unverified_while_the_window_is_open(
        self, now: Any, expected: str
    ) -> None:
        assert result(report("live"), OFFERED, now) == expected

    def test_the_reason_for_the_downgrade_is_stored(self) -> None:
        verdict = judge(report("live"), OFFERED, NOW)
        assert isinstance(verdict, Outcome)
        assert verdict.route_reason == "no_live_claim"

    @pytest.mark.parametrize("via", [None, "bg", "inbox"])
    def test_anything_else_has_to_claim_first(self, via: str | None) -> None:
        assert result(report(via), OFFERED) == "not_claimed"
        assert result(report(via), OFFERED, LATE) == "claim_window_closed"


class TestClaimed:
    @pytest.mark.parametrize("via", [None, "live"])
    def test_the_session_that_claimed_is_believed(self, via: str | None) -> None:
        assert result(report(via), execution_in(State.CLAIMED), LATE) == "live"


class TestQueued:
    def test_work_nobody_took_cannot_be_reported(self) -> None:
        assert result(report("bg"), execution_in(State.QUEUED)) == "not_claimed"

    def test_after_a_fallback_a_live_session_is_too_late(self) -> None:
        assert result(report("live"), apply(OFFERED, fell_back())) == "claim_window_closed"

    def test_a_worker_whose_lease_is_gone_is_told_so_and_not_something_about_claims(self) -> None:
        direct = apply(execution_in(State.LEASED), attempt_failed())
        fallen = execution(accepted(decision(LIVE, FALLBACK)), fell_back(), leased(1, 32), attempt_failed(1, 40))
        assert {result(report("bg", lease=1), each) for each in (direct, fallen)} == {"stale_lease"}


class TestLeased:
    @pytest.mark.parametrize("lease", [None, 0, 2])
    def test_any_lease_but_the_present_one_is_stale(self, lease: int | None) -> None:
        assert result(report("bg", lease), execution_in(State.LEASED)) == "stale_lease"

    def test_the_lease_before_the_present_one_is_stale(self) -> None:
        second = apply(apply(execution_in(State.LEASED), attempt_failed()), leased(2, 10))
        assert result(report("bg", 1), second) == "stale_lease"
        assert result(report("bg", 2), second) == "background_direct"

    def test_work_after_a_fallback_bears_its_name(self) -> None:
        fallen = execution(accepted(decision(LIVE, FALLBACK)), fell_back(), leased(1, 32))
        assert result(report("bg", 1), fallen) == "background_fallback"

    def test_a_background_worker_that_says_live_is_not_believed(self) -> None:
        verdict = judge(report("live", 1), execution_in(State.LEASED), NOW)
        assert isinstance(verdict, Outcome)
        assert (verdict.route, verdict.route_reason) == (DeliveryRoute.LIVE_UNVERIFIED, "no_live_claim")

    def test_nobody_reports_for_a_webhook_from_outside(self) -> None:
        assert result(report(None, 1), execution(accepted(WEBHOOK), leased())) == "stale_lease"


@pytest.mark.parametrize("state", [State.IN_INBOX, State.INBOX_DELIVERED, State.INBOX_READ])
class TestInbox:
    @pytest.mark.parametrize("via", [None, "inbox"])
    def test_its_reader_may_report_at_any_time(self, state: State, via: str | None) -> None:
        assert result(report(via), execution_in(state)) == "inbox"

    def test_live_is_not_believed(self, state: State) -> None:
        assert result(report("live"), execution_in(state)) == "live_unverified"


class TestWaiting:
    def test_what_was_never_offered_cannot_be_reported(self) -> None:
        assert result(report("live"), execution_in(State.WAITING)) == "not_claimed"

    def test_after_an_offer_nobody_claimed_it_is_too_late(self) -> None:
        again = apply(execution(accepted(decision(LIVE, LIVE))), fell_back(decision(LIVE).steps[0]))
        assert result(report("live"), again) == "claim_window_closed"


class TestDelivered:
    def test_the_same_content_again_is_the_recorded_outcome_itself(self) -> None:
        recorded = outcome(executed_via="bg")
        done = apply(execution_in(State.LEASED), outcome_recorded(recorded))
        assert judge(report("bg", 99), done, NOW) is recorded

    @pytest.mark.parametrize(
        "change",
        [{"success": False}, {"result": "other"}, {"error": "e"}, {"metadata": {"a": 1}}, {"executed_via": "live"}],
    )
    def test_any_other_content_is_a_conflict(self, change: dict[str, Any]) -> None:
        done = apply(execution_in(State.LEASED), outcome_recorded(outcome(executed_via="bg")))
        assert result(replace(report("bg"), **change), done) == "outcome_conflict"


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES - {State.DELIVERED, State.LIVE_UNCLAIMED_NO_FALLBACK}))
def test_what_ended_without_an_outcome_takes_none(state: State) -> None:
    assert result(report("live"), execution_in(state)) == "execution_closed"


def test_an_unclaimed_end_says_that_the_window_is_closed() -> None:
    assert result(report("live"), execution_in(State.LIVE_UNCLAIMED_NO_FALLBACK)) == "claim_window_closed"


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("via", [None, "live", "bg", "inbox"])
@pytest.mark.parametrize("lease", [None, 1])
def test_no_state_lacks_an_answer_and_only_a_claim_makes_the_route_live(
    state: State, via: str | None, lease: int | None
) -> None:
    assert (result(report(via, lease), execution_in(state)) == "live") == (state is State.CLAIMED)


@pytest.mark.parametrize(
    ("channel", "mode", "expected"),
    [
        (Channel.BG, EffectiveMode.BG, DeliveryRoute.BACKGROUND_DIRECT),
        (Channel.BG, EffectiveMode.BACKGROUND_FALLBACK, DeliveryRoute.BACKGROUND_FALLBACK),
        (INBOX, EffectiveMode.INBOX, DeliveryRoute.INBOX),
        (WEBHOOK, EffectiveMode.WEBHOOK, DeliveryRoute.WEBHOOK),
    ],
)
def test_the_route_follows_the_channel_and_how_it_was_reached(
    channel: Channel, mode: EffectiveMode, expected: DeliveryRoute
) -> None:
    assert background_route(execution_in(State.QUEUED, channel=channel, mode=mode)) is expected


def test_a_report_has_the_content_of_the_outcome_made_from_it() -> None:
    said = report("live")
    made = judge(said, execution_in(State.CLAIMED), NOW)
    assert isinstance(made, Outcome)
    assert same_content(said, made)
