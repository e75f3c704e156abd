"""The attempts at an execution, read off its history."""

from dataclasses import replace

from contracts.records import WebhookAnswer
from contracts.words import DeliveryRoute, Reason, State
from router.attempts import attempt_views
from tests.builders import WEBHOOK, accepted, again, attempt_failed, ended, history, leased, outcome_recorded, replayed

REFUSED = WebhookAnswer(status=500, latency_ms=12, error="http_500", response="out of order")
TAKEN = WebhookAnswer(status=200, latency_ms=3, response="thanks")
FAILED = replace(attempt_failed(), answer=REFUSED)
DONE = replace(outcome_recorded(DeliveryRoute.WEBHOOK, at_s=20), answer=TAKEN)


def test_each_attempt_tells_what_came_of_it() -> None:
    told = attempt_views(history(accepted(WEBHOOK), leased(), FAILED, leased(2, at_s=19), DONE), 1, with_responses=True)

    shown = [(each["number"], each["succeeded"], each["status"], each["error"], each["response"]) for each in told]
    assert shown == [(1, False, 500, "http_500", "out of order"), (2, True, 200, None, "thanks")]
    assert told[0]["retry_at"] is not None
    assert told[1]["retry_at"] is None


def test_what_a_receiver_said_is_not_for_everybody() -> None:
    [told] = attempt_views(history(accepted(WEBHOOK), leased(), FAILED), 1, with_responses=False)
    assert (told["status"], told["latency_ms"], told["error"], told["response"]) == (500, 12, "http_500", None)


def test_an_attempt_lost_with_its_router_says_so_and_one_under_way_says_nothing() -> None:
    lost = replace(attempt_failed(), reason=Reason.LEASE_EXPIRED)
    told = attempt_views(history(accepted(WEBHOOK), leased(), lost, leased(2, at_s=19)), 1, with_responses=True)
    assert [(each["status"], each["error"], each["ended_at"] is None) for each in told] == [
        (None, "lease_expired", False),
        (None, None, True),
    ]


def test_the_last_attempt_of_all_is_told_as_well() -> None:
    gone = replace(ended(State.WEBHOOK_EXHAUSTED, Reason.RECEIVER_GONE), answer=replace(REFUSED, status=410))
    [told] = attempt_views(history(accepted(WEBHOOK), leased(), gone), 1, with_responses=True)
    assert (told["status"], told["succeeded"]) == (410, False)


def test_executions_are_told_apart() -> None:
    anew = again(leased(at_s=11), replace(DONE, at=replayed(WEBHOOK, at_s=12).at))
    events = history(accepted(WEBHOOK), leased(), replace(DONE, answer=REFUSED), replayed(WEBHOOK), *anew)
    assert [each["status"] for each in attempt_views(events, 1, with_responses=True)] == [500]
    assert [each["status"] for each in attempt_views(events, 2, with_responses=True)] == [200]
