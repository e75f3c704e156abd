"""The gates, on both sides of each boundary."""

from dataclasses import replace

import pytest

from contracts.records import GateResult, Reachability
from contracts.words import AgentStatus, Gate, Reason, Verdict
from router.gates import (
    ECHO_BOUND_S,
    Question,
    age,
    agent_active,
    capability,
    freshest_session,
    heartbeat_fresh,
    host_fresh,
    push_path,
    session_attached,
    webhook_configured,
)
from tests.builders import BG, INBOX, LIVE, NOW, WEBHOOK, after, agent, echoing, heard, question, reachable

AGE_MAX_S = 120


def answer(result: GateResult) -> tuple[Verdict, Reason]:
    return result.verdict, result.reason


def about(reach: Reachability) -> Question:
    return question(agent(LIVE, BG, heartbeat_age_sec=AGE_MAX_S), reach)


class TestAgentActive:
    def test_an_active_agent_passes_and_the_channel_is_left_open(self) -> None:
        result = agent_active(question(agent()))
        assert answer(result) == (Verdict.PASS, Reason.OK)
        assert (result.gate, result.channel) == (Gate.AGENT_ACTIVE, None)

    def test_an_inactive_agent_fails(self) -> None:
        result = agent_active(question(agent(status=AgentStatus.INACTIVE)))
        assert answer(result) == (Verdict.FAIL, Reason.AGENT_INACTIVE)
        assert result.facts == {"status": "inactive"}

    def test_a_deleted_agent_fails_though_its_status_is_still_active(self) -> None:
        assert answer(agent_active(question(agent(deleted_at=after(-1))))) == (Verdict.FAIL, Reason.AGENT_INACTIVE)


class TestCapability:
    def test_a_declared_channel_passes(self) -> None:
        assert answer(capability(question(agent(BG, INBOX)), BG)) == (Verdict.PASS, Reason.OK)

    def test_an_undeclared_channel_fails_and_says_what_is_declared(self) -> None:
        result = capability(question(agent(BG, INBOX)), LIVE)
        assert answer(result) == (Verdict.FAIL, Reason.CAPABILITY_NOT_DECLARED)
        assert result.facts == {"declared": ["bg", "inbox"]}


class TestSessionAttached:
    def test_one_session_is_enough_even_if_it_was_never_heard_of(self) -> None:
        result = session_attached(about(reachable(heard(None))), LIVE)
        assert answer(result) == (Verdict.PASS, Reason.OK)
        assert result.facts == {"attached": 1}

    def test_without_a_session_it_fails(self) -> None:
        assert answer(session_attached(about(reachable()), LIVE)) == (Verdict.FAIL, Reason.NO_SESSION_ATTACHED)


class TestHeartbeatFresh:
    @pytest.mark.parametrize(
        ("age_s", "expected"),
        [
            (0, (Verdict.PASS, Reason.OK)),
            (AGE_MAX_S - 0.000_001, (Verdict.PASS, Reason.OK)),
            (AGE_MAX_S, (Verdict.PASS, Reason.OK)),
            (AGE_MAX_S + 0.000_001, (Verdict.FAIL, Reason.HEARTBEAT_STALE)),
            (AGE_MAX_S + 0.04, (Verdict.FAIL, Reason.HEARTBEAT_STALE)),
            (AGE_MAX_S + 1, (Verdict.FAIL, Reason.HEARTBEAT_STALE)),
        ],
    )
    def test_a_heartbeat_counts_up_to_exactly_the_agents_limit(
        self, age_s: float, expected: tuple[Verdict, Reason]
    ) -> None:
        assert answer(heartbeat_fresh(about(reachable(heard(age_s))), LIVE)) == expected

    def test_the_limit_is_the_agents_own(self) -> None:
        recipient = agent(LIVE, heartbeat_age_sec=10)
        assert heartbeat_fresh(question(recipient, reachable(heard(11))), LIVE).reason is Reason.HEARTBEAT_STALE

    def test_the_facts_of_a_stale_heartbeat_show_an_age_beyond_the_limit(self) -> None:
        facts = heartbeat_fresh(about(reachable(heard(AGE_MAX_S + 0.001))), LIVE).facts
        assert facts == {"age_s": 120.1, "max_age_s": 120, "label": "main"}

    def test_the_freshest_of_several_sessions_counts(self) -> None:
        reach = reachable(heard(500, "old"), heard(None, "new"), heard(5, "desk"))
        result = heartbeat_fresh(about(reach), LIVE)
        assert (result.verdict, result.facts["label"]) == (Verdict.PASS, "desk")

    def test_a_heartbeat_from_a_clock_that_is_ahead_counts_as_new(self) -> None:
        result = heartbeat_fresh(about(reachable(heard(-3))), LIVE)
        assert (result.verdict, result.facts["age_s"]) == (Verdict.PASS, 0.0)

    def test_a_session_never_heard_of_is_missing_its_heartbeat(self) -> None:
        assert heartbeat_fresh(about(reachable(heard(None))), LIVE).reason is Reason.HEARTBEAT_MISSING

    def test_what_the_store_cannot_say_is_unknown_and_not_fresh(self) -> None:
        result = heartbeat_fresh(about(reachable(heard(1), known=False)), LIVE)
        assert answer(result) == (Verdict.FAIL, Reason.HEARTBEAT_UNKNOWN)


class TestPushPath:
    @pytest.mark.parametrize(
        ("asked_s", "answered_s", "expected"),
        [
            (None, None, (Verdict.PASS, Reason.OK)),
            (5, 4, (Verdict.PASS, Reason.OK)),
            (5, 5, (Verdict.PASS, Reason.OK)),
            (3_000, 2_999, (Verdict.PASS, Reason.OK)),
            (ECHO_BOUND_S, None, (Verdict.PASS, Reason.OK)),
            (ECHO_BOUND_S, 40, (Verdict.PASS, Reason.OK)),
            (ECHO_BOUND_S + 0.001, None, (Verdict.FAIL, Reason.ECHO_MISSING)),
            (ECHO_BOUND_S + 0.001, 40, (Verdict.FAIL, Reason.UNREACHABLE)),
        ],
    )
    def test_an_echo_has_its_time_and_not_more(
        self, asked_s: float | None, answered_s: float | None, expected: tuple[Verdict, Reason]
    ) -> None:
        assert answer(push_path(about(echoing(asked_s=asked_s, answered_s=answered_s)), LIVE)) == expected

    def test_the_facts_say_how_long_ago_it_was_asked_and_answered(self) -> None:
        result = push_path(about(echoing(asked_s=12, answered_s=31)), LIVE)
        assert result.facts == {"echoing": 1, "bound_s": 10, "asked_age_s": 12.0, "answered_age_s": 31.0}

    def test_a_session_that_cannot_echo_is_not_judged_by_echoes(self) -> None:
        silent = echoing(asked_s=60, answered_s=None)
        plain = replace(silent, sessions=(heard(1),))
        both = replace(silent, sessions=(*silent.sessions, heard(1, "plain")))
        assert push_path(about(plain), LIVE).reason is Reason.OK
        assert push_path(about(both), LIVE).reason is Reason.OK

    def test_a_stale_session_that_cannot_echo_does_not_speak_for_a_fresh_one(self) -> None:
        silent = echoing(asked_s=60, answered_s=None)
        with_stale = replace(silent, sessions=(*silent.sessions, heard(1_000, "plain")))
        assert push_path(about(with_stale), LIVE).reason is Reason.ECHO_MISSING


class TestHostFresh:
    @pytest.mark.parametrize(
        ("age_s", "expected"),
        [
            (AGE_MAX_S, (Verdict.PASS, Reason.OK)),
            (AGE_MAX_S + 0.000_001, (Verdict.WAIT, Reason.HOST_STALE)),
            (None, (Verdict.WAIT, Reason.HOST_NEVER_SEEN)),
        ],
    )
    def test_a_silent_host_makes_the_message_wait_and_never_refuses_it(
        self, age_s: float | None, expected: tuple[Verdict, Reason]
    ) -> None:
        assert answer(host_fresh(about(reachable(host_age_s=age_s)), BG)) == expected

    def test_an_unknown_host_makes_the_message_wait(self) -> None:
        assert answer(host_fresh(about(reachable(known=False)), BG)) == (Verdict.WAIT, Reason.HOST_UNKNOWN)

    def test_a_fresh_session_does_not_speak_for_its_host(self) -> None:
        assert host_fresh(about(reachable(heard(1), host_age_s=None)), BG).reason is Reason.HOST_NEVER_SEEN


class TestWebhookConfigured:
    def test_an_agent_with_a_url_passes_and_the_url_stays_out_of_the_trace(self) -> None:
        result = webhook_configured(question(agent(WEBHOOK)), WEBHOOK)
        assert answer(result) == (Verdict.PASS, Reason.OK)
        assert result.facts == {}

    def test_an_agent_without_a_url_fails(self) -> None:
        result = webhook_configured(question(agent(WEBHOOK, webhook_url=None)), WEBHOOK)
        assert answer(result) == (Verdict.FAIL, Reason.WEBHOOK_URL_MISSING)

    def test_a_receiver_that_said_gone_fails(self) -> None:
        result = webhook_configured(question(agent(WEBHOOK, webhook_disabled_at=after(-1))), WEBHOOK)
        assert answer(result) == (Verdict.FAIL, Reason.WEBHOOK_DISABLED)


@pytest.mark.parametrize(
    ("age_s", "shown"), [(0, 0.0), (0.000_001, 0.1), (0.3, 0.3), (0.7, 0.7), (1.1, 1.1), (119.91, 120.0), (-5, 0.0)]
)
def test_an_age_is_shown_to_the_tenth_and_rounded_up(age_s: float, shown: float) -> None:
    assert age(after(-age_s), NOW) == shown


def test_nobody_heard_of_means_no_freshest_session() -> None:
    assert freshest_session(()) is None
    assert freshest_session((heard(None),)) is None


def test_whoever_is_known_to_be_gone_is_stale_however_young_and_the_trace_says_how_long_it_was_silent() -> None:
    gone = replace(heard(3), is_gone=True)
    result = heartbeat_fresh(about(reachable(gone)), LIVE)
    assert answer(result) == (Verdict.FAIL, Reason.HEARTBEAT_STALE)
    assert (result.facts["age_s"], result.facts["gone"]) == (3.0, True)
    assert push_path(about(reachable(replace(gone, echoes=True))), LIVE).facts["echoing"] == 0


def test_whoever_lives_speaks_for_an_agent_before_whoever_is_gone_and_was_heard_of_later() -> None:
    lives = heard(60)
    assert freshest_session((replace(heard(1), is_gone=True), lives)) == lives
