"""Whose claim counts: the order of the checks, and the code each refusal carries."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from contracts.records import LiveSession
from contracts.words import AttestationLevel, State
from router.attestation import Attested, Proof, Refused, attest, push_nonce, token_hash
from router.execution import Execution, apply
from tests.builders import (
    FALLBACK,
    LIVE,
    NOW,
    TOKEN,
    WINDOW_S,
    accepted,
    after,
    agent,
    claimed,
    decision,
    ended,
    execution,
    execution_in,
    fell_back,
    heard,
    leased,
    reachable,
    session,
)

SECRET = b"installation"
OFFERED = execution_in(State.OFFERED)
NONCE = push_nonce(SECRET, "exec_1", after(WINDOW_S))
OTHER_TOKEN = "another-session-s-token-0123"
BOTH = AttestationLevel.TOKEN_NONCE


def judged(of: Execution = OFFERED, token: str = TOKEN, nonce: str | None = None, **changes: Any) -> Attested | Refused:
    facts: dict[str, Any] = {
        "agent": agent(LIVE),
        "sessions": (session(),),
        "reach": reachable(heard(1)),
        "expected_nonce": NONCE,
        "now": NOW,
    }
    return attest(Proof(session_token=token, nonce=nonce), of, **facts | changes)


def code(verdict: Attested | Refused) -> str:
    return verdict.code if isinstance(verdict, Refused) else "attested"


def level(verdict: Attested | Refused) -> AttestationLevel | None:
    return verdict.level if isinstance(verdict, Attested) else None


class TestTheToken:
    def test_the_token_of_an_attached_fresh_session_is_enough(self) -> None:
        verdict = judged()
        assert verdict == Attested(session=session(), level=AttestationLevel.TOKEN)

    @pytest.mark.parametrize("token", ["", "wrong", TOKEN.upper(), TOKEN + "x", "\ud800", "ünïcödé"])
    def test_any_other_token_is_refused(self, token: str) -> None:
        verdict = judged(token=token)
        assert code(verdict) == "invalid_session_token"
        assert isinstance(verdict, Refused)
        assert verdict.is_proof

    def test_its_hash_is_not_the_token(self) -> None:
        assert code(judged(token=token_hash(TOKEN))) == "invalid_session_token"

    def test_the_token_of_a_detached_session_is_refused(self) -> None:
        assert code(judged(sessions=(session(detached_at=after(-1)),))) == "invalid_session_token"

    def test_without_any_session_every_token_is_refused(self) -> None:
        assert code(judged(sessions=())) == "invalid_session_token"

    def test_the_right_one_of_several_sessions_is_found(self) -> None:
        desk = session("desk", token=OTHER_TOKEN)
        verdict = judged(token=OTHER_TOKEN, sessions=(session(), desk), reach=reachable(heard(1), heard(1, "desk")))
        assert isinstance(verdict, Attested)
        assert verdict.session == desk


class TestFreshness:
    @pytest.mark.parametrize(("age_s", "expected"), [(120, "attested"), (120.001, "invalid_session_token")])
    def test_a_session_may_claim_up_to_exactly_the_agents_limit(self, age_s: float, expected: str) -> None:
        assert code(judged(reach=reachable(heard(age_s)))) == expected

    def test_the_freshness_of_another_session_does_not_help(self) -> None:
        reach = reachable(heard(1_000, "main"), heard(1, "desk"))
        assert code(judged(reach=reach)) == "invalid_session_token"

    @pytest.mark.parametrize(
        "reach", [reachable(heard(None)), reachable(), reachable(heard(1_000), known=False)], ids=repr
    )
    def test_when_nothing_is_known_the_claim_itself_is_a_sign_of_life(self, reach: Any) -> None:
        assert code(judged(reach=reach)) == "attested"


class TestTheWindow:
    @pytest.mark.parametrize(
        ("at_s", "expected"),
        [(WINDOW_S - 0.001, "attested"), (WINDOW_S, "attested"), (WINDOW_S + 0.001, "claim_window_closed")],
    )
    def test_the_window_is_open_up_to_and_including_its_last_instant(self, at_s: float, expected: str) -> None:
        now = after(at_s)
        assert code(judged(now=now, reach=reachable(replace(heard(0), last_seen_at=now)))) == expected

    def test_after_the_fallback_the_window_is_closed_whatever_became_of_the_message(self) -> None:
        queued = apply(OFFERED, fell_back())
        working = apply(queued, leased())
        exhausted = apply(working, ended(State.BG_EXHAUSTED))
        assert {code(judged(each)) for each in (queued, working, exhausted)} == {"claim_window_closed"}

    def test_a_message_that_waits_again_after_an_offer_cannot_be_claimed(self) -> None:
        waiting = apply(execution(accepted(decision(LIVE, LIVE))), fell_back(decision(LIVE).steps[0]))
        assert code(judged(waiting)) == "claim_window_closed"

    def test_an_unclaimed_end_is_a_closed_window(self) -> None:
        assert code(judged(execution_in(State.LIVE_UNCLAIMED_NO_FALLBACK))) == "claim_window_closed"

    @pytest.mark.parametrize("state", [State.CANCELLED, State.DELIVERED])
    def test_an_offer_that_ended_otherwise_is_a_closed_execution(self, state: State) -> None:
        assert code(judged(replace(OFFERED, state=state))) == "execution_closed"


class TestWhatWasNeverOffered:
    @pytest.mark.parametrize(
        "state", [State.WAITING, State.QUEUED, State.LEASED, State.IN_INBOX, State.LIVE_UNCLAIMED_NO_SESSION]
    )
    def test_it_cannot_be_claimed_live(self, state: State) -> None:
        assert code(judged(execution_in(state))) == "not_offered_live"

    def test_this_is_said_even_to_a_caller_without_a_token(self) -> None:
        assert code(judged(execution_in(State.QUEUED), token="wrong")) == "not_offered_live"


class TestTheOrder:
    @pytest.mark.parametrize("state", [State.CLAIMED, State.LIVE_UNCLAIMED_NO_FALLBACK, State.OUTCOME_MISSING])
    def test_a_caller_without_a_token_learns_nothing_of_the_state(self, state: State) -> None:
        assert code(judged(execution_in(state), token="wrong", nonce="wrong")) == "invalid_session_token"

    def test_a_closed_window_is_said_before_the_nonce_is_looked_at(self) -> None:
        late = after(WINDOW_S + 1)
        verdict = judged(nonce="wrong", now=late, reach=reachable())
        assert code(verdict) == "claim_window_closed"


class TestTheNonce:
    def test_a_matching_nonce_raises_the_level(self) -> None:
        assert level(judged(nonce=NONCE)) is BOTH

    def test_a_wrong_nonce_is_refused_even_where_none_is_needed(self) -> None:
        verdict = judged(nonce=NONCE[:-1] + "x")
        assert code(verdict) == "push_proof_missing"
        assert isinstance(verdict, Refused)
        assert verdict.is_proof

    @pytest.mark.parametrize("nonce", [None, "", "wrong", "\ud800"])
    @pytest.mark.parametrize("who", ["agent", "session"])
    def test_where_agent_or_session_asks_for_it_a_token_alone_is_refused(self, who: str, nonce: str | None) -> None:
        changes: dict[str, Any] = {"agent": agent(LIVE, attestation=BOTH)}
        if who == "session":
            changes = {"sessions": (session(attestation=BOTH),)}
        assert code(judged(nonce=nonce, **changes)) == "push_proof_missing"

    def test_without_an_expected_nonce_no_nonce_matches(self) -> None:
        assert code(judged(nonce="", expected_nonce=None)) == "push_proof_missing"

    def test_another_offer_of_the_same_execution_has_another_nonce(self) -> None:
        nonces = {
            NONCE,
            push_nonce(SECRET, "exec_1", after(WINDOW_S) + timedelta(microseconds=1)),
            push_nonce(SECRET, "exec_2", after(WINDOW_S)),
            push_nonce(b"another installation", "exec_1", after(WINDOW_S)),
        }
        assert len(nonces) == 4


class TestTheWinner:
    def test_it_may_repeat_its_claim_even_after_the_window(self) -> None:
        verdict = judged(execution_in(State.CLAIMED), now=after(500), reach=reachable())
        assert verdict == Attested(session=session(), level=AttestationLevel.TOKEN, repeated=True)

    def test_it_may_repeat_its_claim_with_the_nonce_it_won_with(self) -> None:
        won = execution(accepted(decision(LIVE, FALLBACK)), claimed(level=BOTH))
        assert won.claim_before is not None
        again = push_nonce(SECRET, "exec_1", won.claim_before)
        verdict = judged(won, nonce=again, sessions=(session(attestation=BOTH),))
        assert isinstance(verdict, Attested)
        assert verdict.repeated

    def test_its_token_alone_does_not_repeat_a_claim_that_needs_the_nonce(self) -> None:
        won = execution_in(State.CLAIMED)
        assert code(judged(won, sessions=(session(attestation=BOTH),))) == "push_proof_missing"

    def test_another_session_is_told_that_the_execution_is_taken(self) -> None:
        desk: LiveSession = session("desk", token=OTHER_TOKEN)
        verdict = judged(execution_in(State.CLAIMED), token=OTHER_TOKEN, sessions=(session(), desk))
        assert code(verdict) == "already_claimed"

    @pytest.mark.parametrize("state", [State.DELIVERED, State.OUTCOME_MISSING])
    def test_once_the_execution_has_ended_the_winner_is_told_so(self, state: State) -> None:
        assert code(judged(replace(execution_in(State.CLAIMED), state=state))) == "execution_closed"
