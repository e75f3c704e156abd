"""Which way a message goes: the rules of the design, one sentence each, and the whole table of forced modes."""

import pytest

from contracts.records import Agent, Decision, Reachability, Wish
from contracts.words import (
    AgentStatus,
    Channel,
    EffectiveMode,
    FallbackMode,
    Gate,
    Reason,
    State,
    Verdict,
)
from router.decision import decide, first_state, reachability_matters
from tests.builders import (
    BG,
    FRESH,
    INBOX,
    LIVE,
    NO_SESSION,
    STALE,
    WEBHOOK,
    agent,
    echoing,
    heard,
    question,
    reachable,
    wish,
)

BACKGROUND, NONE, LIVE_ONLY = FallbackMode.BACKGROUND, FallbackMode.NONE, FallbackMode.LIVE_ONLY
SILENT = reachable(heard(None))
UNKNOWN = reachable(heard(1), known=False)
NO_BG_TO_FALL_TO = (LIVE, INBOX)


def decided(recipient: Agent, reach: Reachability = FRESH, wanted: Wish | None = None) -> Decision:
    return decide(wanted or wish(), question(recipient, reach))


def way(decision: Decision) -> list[str]:
    """The modes of the plan in order; empty when the decision is an ending."""
    return [step.mode.value for step in decision.steps]


def asked(decision: Decision) -> list[tuple[str, str]]:
    """The gates asked, in order: (channel, gate)."""
    return [(each.channel.value if each.channel else "-", each.gate.value) for each in decision.trace]


class TestAuto:
    def test_the_preferred_contact_comes_first(self) -> None:
        recipient = agent(LIVE, BG, INBOX, preferred_contact=BG)
        assert way(decided(recipient)) == ["bg"]

    def test_without_a_preference_live_comes_before_bg_webhook_and_inbox_in_whatever_order_declared(self) -> None:
        assert way(decided(agent(INBOX, WEBHOOK, BG, LIVE))) == ["live", "background_fallback"]
        assert way(decided(agent(INBOX, WEBHOOK, BG))) == ["bg"]
        assert way(decided(agent(INBOX, WEBHOOK))) == ["webhook"]
        assert way(decided(agent(INBOX))) == ["inbox"]

    def test_a_preference_the_agent_does_not_declare_is_passed_over(self) -> None:
        assert way(decided(agent(BG, INBOX, preferred_contact=LIVE))) == ["bg"]

    def test_a_stale_session_sends_auto_to_bg_and_says_why(self) -> None:
        decision = decided(agent(LIVE, BG, INBOX), STALE)
        assert way(decision) == ["background_fallback"]
        assert [each.reason for each in decision.trace if each.verdict is Verdict.FAIL] == [Reason.HEARTBEAT_STALE]

    @pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.ECHO_MISSING])
    def test_a_session_no_push_reaches_counts_as_stale_though_it_beats(self, reason: Reason) -> None:
        cut_off = echoing(asked_s=20, answered_s=40 if reason is Reason.UNREACHABLE else None)
        decision = decided(agent(LIVE, BG, INBOX), cut_off)
        assert way(decision) == ["background_fallback"]
        assert [each.reason for each in decision.trace if each.verdict is Verdict.FAIL] == [reason]
        ended = decided(agent(LIVE, INBOX), cut_off, wish(LIVE, NONE))
        assert (ended.ending, ended.reason) == (State.LIVE_UNCLAIMED_STALE_HEARTBEAT, reason)

    @pytest.mark.parametrize("reach", [SILENT, UNKNOWN])
    def test_a_session_that_cannot_be_heard_counts_as_stale(self, reach: Reachability) -> None:
        assert way(decided(agent(LIVE, BG), reach)) == ["background_fallback"]

    def test_with_no_session_at_all_bg_is_simply_bg(self) -> None:
        assert way(decided(agent(LIVE, BG), NO_SESSION)) == ["bg"]

    def test_a_stale_session_without_bg_goes_on_to_the_next_channel(self) -> None:
        assert way(decided(agent(LIVE, WEBHOOK, INBOX), STALE)) == ["webhook"]
        assert way(decided(agent(LIVE, INBOX), STALE)) == ["inbox"]

    def test_a_webhook_without_a_url_is_passed_over_for_the_inbox(self) -> None:
        decision = decided(agent(WEBHOOK, INBOX, webhook_url=None))
        assert way(decision) == ["inbox"]
        assert asked(decision) == [
            ("-", "agent_active"),
            ("webhook", "capability"),
            ("webhook", "webhook_configured"),
            ("inbox", "capability"),
        ]

    def test_an_unclaimed_offer_falls_to_bg_before_everything_else(self) -> None:
        assert way(decided(agent(LIVE, WEBHOOK, BG, INBOX, preferred_contact=LIVE)))[1] == "background_fallback"

    def test_an_unclaimed_offer_without_bg_falls_to_the_next_channel_that_would_take_it(self) -> None:
        assert way(decided(agent(LIVE, WEBHOOK, INBOX))) == ["live", "webhook"]
        assert way(decided(agent(LIVE, WEBHOOK, INBOX, webhook_url=None))) == ["live", "inbox"]
        assert way(decided(agent(LIVE))) == ["live"]

    def test_an_unclaimed_offer_has_nothing_after_it_when_the_fallback_is_off(self) -> None:
        assert way(decided(agent(LIVE, BG, INBOX), FRESH, wish(fallback=NONE))) == ["live"]

    def test_an_unclaimed_offer_is_made_again_when_only_live_will_do(self) -> None:
        assert way(decided(agent(LIVE, BG, INBOX), FRESH, wish(fallback=LIVE_ONLY))) == ["live", "live"]

    def test_the_host_need_not_be_there_for_bg_to_be_chosen(self) -> None:
        decision = decided(agent(BG, INBOX), reachable(host_age_s=None))
        assert way(decision) == ["bg"]
        assert (decision.trace[-1].verdict, decision.trace[-1].reason) == (Verdict.WAIT, Reason.HOST_NEVER_SEEN)

    def test_an_agent_with_only_a_dead_webhook_is_the_senders_to_know(self) -> None:
        decision = decided(agent(WEBHOOK, webhook_url=None))
        assert (decision.ending, decision.reason) == (State.REJECTED, Reason.WEBHOOK_URL_MISSING)

    def test_an_agent_with_only_live_and_no_session_ends_at_once(self) -> None:
        decision = decided(agent(LIVE), NO_SESSION)
        assert (decision.ending, decision.reason) == (State.LIVE_UNCLAIMED_NO_SESSION, Reason.NO_SESSION_ATTACHED)

    def test_an_agent_that_declares_nothing_is_rejected_with_the_reason(self) -> None:
        decision = decided(agent(delivery_capabilities=()))
        assert (decision.ending, decision.reason) == (State.REJECTED, Reason.CAPABILITY_NOT_DECLARED)
        assert decision.trace[-1].gate is Gate.CAPABILITY


class TestForced:
    @pytest.mark.parametrize("channel", list(Channel))
    def test_a_channel_the_agent_does_not_declare_is_rejected_with_the_trace(self, channel: Channel) -> None:
        others = tuple(each for each in Channel if each is not channel)
        decision = decided(agent(*others), FRESH, wish(channel))
        assert (decision.ending, decision.reason) == (State.REJECTED, Reason.CAPABILITY_NOT_DECLARED)
        assert asked(decision) == [("-", "agent_active"), (channel.value, "capability")]

    @pytest.mark.parametrize(
        ("channel", "expected"),
        [
            (LIVE, ["live", "background_fallback"]),
            (BG, ["bg"]),
            (WEBHOOK, ["webhook"]),
            (INBOX, ["inbox"]),
        ],
    )
    def test_a_channel_whose_gates_pass_is_taken_whatever_is_preferred(
        self, channel: Channel, expected: list[str]
    ) -> None:
        assert way(decided(agent(*Channel, preferred_contact=INBOX), FRESH, wish(channel))) == expected

    @pytest.mark.parametrize("channel", [BG, INBOX, WEBHOOK])
    @pytest.mark.parametrize("fallback", list(FallbackMode))
    def test_the_fallback_mode_means_nothing_to_channels_other_than_live(
        self, channel: Channel, fallback: FallbackMode
    ) -> None:
        assert way(decided(agent(*Channel), STALE, wish(channel, fallback))) == [channel.value]

    def test_a_webhook_that_is_gone_is_rejected_and_nothing_else_is_tried(self) -> None:
        decision = decided(agent(WEBHOOK, BG, INBOX, webhook_url=None), FRESH, wish(WEBHOOK))
        assert (decision.ending, decision.reason) == (State.REJECTED, Reason.WEBHOOK_URL_MISSING)

    def test_live_unclaimed_without_bg_ends_even_when_an_inbox_is_there(self) -> None:
        assert way(decided(agent(*NO_BG_TO_FALL_TO), FRESH, wish(LIVE))) == ["live"]


# --- forced live: fallback mode × capabilities × what is known of the session ----------------------------------------

WITH_BG = (LIVE, BG, INBOX)
NO_SESSION_END = "live_unclaimed_no_session"
STALE_END = "live_unclaimed_stale_heartbeat"


@pytest.mark.parametrize(
    ("fallback", "capabilities", "reach", "expected"),
    [
        (BACKGROUND, WITH_BG, FRESH, ["live", "background_fallback"]),
        (BACKGROUND, WITH_BG, STALE, ["background_fallback"]),
        (BACKGROUND, WITH_BG, SILENT, ["background_fallback"]),
        (BACKGROUND, WITH_BG, UNKNOWN, ["background_fallback"]),
        (BACKGROUND, WITH_BG, NO_SESSION, ["bg"]),
        (BACKGROUND, NO_BG_TO_FALL_TO, FRESH, ["live"]),
        (BACKGROUND, NO_BG_TO_FALL_TO, STALE, STALE_END),
        (BACKGROUND, NO_BG_TO_FALL_TO, SILENT, STALE_END),
        (BACKGROUND, NO_BG_TO_FALL_TO, UNKNOWN, STALE_END),
        (BACKGROUND, NO_BG_TO_FALL_TO, NO_SESSION, NO_SESSION_END),
        (NONE, WITH_BG, FRESH, ["live"]),
        (NONE, WITH_BG, STALE, STALE_END),
        (NONE, WITH_BG, SILENT, STALE_END),
        (NONE, WITH_BG, UNKNOWN, STALE_END),
        (NONE, WITH_BG, NO_SESSION, NO_SESSION_END),
        (LIVE_ONLY, WITH_BG, FRESH, ["live", "live"]),
        (LIVE_ONLY, WITH_BG, STALE, "waiting"),
        (LIVE_ONLY, WITH_BG, SILENT, "waiting"),
        (LIVE_ONLY, WITH_BG, UNKNOWN, "waiting"),
        (LIVE_ONLY, WITH_BG, NO_SESSION, "waiting"),
    ],
)
def test_forced_live_follows_the_fallback_mode(
    fallback: FallbackMode, capabilities: tuple[Channel, ...], reach: Reachability, expected: list[str] | str
) -> None:
    decision = decided(agent(*capabilities), reach, wish(LIVE, fallback))
    if isinstance(expected, list):
        assert way(decision) == expected
        assert not decision.waits
    else:
        assert first_state(decision) == expected


def test_an_ending_names_the_live_gate_that_said_no_and_the_trace_ends_with_the_fallback() -> None:
    decision = decided(agent(*WITH_BG), STALE, wish(LIVE, NONE))
    assert decision.reason is Reason.HEARTBEAT_STALE
    assert (decision.trace[-1].gate, decision.trace[-1].reason) == (Gate.FALLBACK, Reason.FALLBACK_DISABLED)
    assert decision.trace[-1].facts == {"live_fallback_mode": "none"}


def test_a_fallback_the_agent_never_declared_is_named_in_the_trace() -> None:
    decision = decided(agent(*NO_BG_TO_FALL_TO), NO_SESSION, wish(LIVE))
    last = decision.trace[-1]
    assert (last.gate, last.channel, last.reason) == (Gate.FALLBACK, BG, Reason.FALLBACK_NOT_DECLARED)


def test_a_message_that_waits_for_a_session_goes_on_waiting_after_an_offer_nobody_claimed() -> None:
    decision = decided(agent(*WITH_BG), NO_SESSION, wish(LIVE, LIVE_ONLY))
    assert way(decision) == ["live", "live"]
    assert (decision.trace[-1].verdict, decision.trace[-1].reason) == (Verdict.WAIT, Reason.WAITS_FOR_SESSION)


@pytest.mark.parametrize("channel", [None, *Channel])
def test_an_inactive_agent_rejects_every_mode_before_any_other_gate_is_asked(channel: Channel | None) -> None:
    decision = decided(agent(*Channel, status=AgentStatus.INACTIVE), FRESH, wish(channel))
    assert (decision.ending, decision.reason) == (State.REJECTED, Reason.AGENT_INACTIVE)
    assert asked(decision) == [("-", "agent_active")]


@pytest.mark.parametrize(
    ("channel", "capabilities", "expected"),
    [
        (None, (INBOX, WEBHOOK), False),
        (None, (BG,), True),
        (None, (LIVE,), True),
        (INBOX, (LIVE, BG, INBOX), False),
        (WEBHOOK, (LIVE, WEBHOOK), False),
        (LIVE, (INBOX,), True),
        (BG, (BG,), True),
    ],
)
def test_heartbeats_are_asked_for_only_where_they_can_matter(
    channel: Channel | None, capabilities: tuple[Channel, ...], expected: bool
) -> None:
    assert reachability_matters(wish(channel), agent(*capabilities)) is expected


@pytest.mark.parametrize(
    ("channel", "expected"),
    [(LIVE, State.OFFERED), (BG, State.QUEUED), (WEBHOOK, State.QUEUED), (INBOX, State.IN_INBOX)],
)
def test_each_channel_has_its_first_state(channel: Channel, expected: State) -> None:
    assert first_state(decided(agent(*Channel), FRESH, wish(channel))) is expected


def test_background_fallback_is_declared_by_the_plan_and_not_only_by_its_channel() -> None:
    assert decided(agent(LIVE, BG)).steps[1].mode is EffectiveMode.BACKGROUND_FALLBACK
