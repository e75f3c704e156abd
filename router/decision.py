"""The decision: which way a message goes, what follows if that comes to nothing, and why. Pure.

    forced mode   its gates pass → that channel          capability missing → rejected, the sender's to fix
                  live, gate fails → by live_fallback_mode: bg when declared | end at once | wait for a session
    auto          preferred_contact, then the others in the order live, bg, webhook, inbox:
                  the first whose gates all pass

The same function serves sending, dry runs, redrives and the console, so the answer is the same everywhere.
"""

from contracts.records import Agent, Decision, GateResult, Step, Trace, Wish
from contracts.words import Channel, EffectiveMode, FallbackMode, Gate, Reason, State, Verdict
from router.channels import ALL
from router.gates import Question, agent_active

_SILENT = frozenset({Reason.HEARTBEAT_STALE, Reason.HEARTBEAT_MISSING, Reason.HEARTBEAT_UNKNOWN})
_OUT_OF_REACH = _SILENT | {Reason.UNREACHABLE, Reason.ECHO_MISSING}


def decide(wish: Wish, q: Question) -> Decision:
    """Decide how to deliver to `q.recipient`.

    Returns a decision whose `ending` is `rejected` when the sender has to change something (inactive agent, channel
    not declared, no webhook URL), another terminal state when the message is accepted and ends at once, else None.
    """
    active = agent_active(q)
    if active.verdict is Verdict.FAIL:
        return _rejected((active,), active.reason)
    if wish.channel is None:
        return _automatic(wish, q, (active,))
    return _forced(wish.channel, wish, q, (active,))


def reachability_matters(wish: Wish, recipient: Agent) -> bool:
    """Say whether heartbeats can influence the decision at all; if not, nobody needs to ask for them."""
    wanted = recipient.delivery_capabilities if wish.channel is None else (wish.channel,)
    return Channel.LIVE in wanted or Channel.BG in wanted


def first_state(decision: Decision) -> State:
    """The state an execution enters with this decision; one that is not taken yet has neither steps nor an ending."""
    if decision.ending is not None:
        return decision.ending
    if not decision.steps:
        return State.SCHEDULED
    return State.WAITING if decision.waits else ALL[decision.steps[0].channel].first_state


def _forced(channel: Channel, wish: Wish, q: Question, trace: Trace) -> Decision:
    answers = ALL[channel].ask(q)
    trace += answers
    if _all_pass(answers):
        return _chosen(channel, wish, q, trace)
    failed = answers[-1]
    if failed.gate is Gate.CAPABILITY or channel is not Channel.LIVE:
        return _rejected(trace, failed.reason)
    return _without_session(wish, q, trace, failed.reason)


def _automatic(wish: Wish, q: Question, trace: Trace) -> Decision:
    refusals: dict[Channel, Reason] = {}
    # An agent that declares nothing is asked for its inbox, so that the trace says what it lacks.
    for channel in _preference(q.recipient) or [Channel.INBOX]:
        answers = ALL[channel].ask(q)
        trace += answers
        if _all_pass(answers):
            return _chosen(channel, wish, q, trace, live_refusal=refusals.get(Channel.LIVE))
        refusals[channel] = answers[-1].reason
    if Channel.LIVE not in refusals:
        return _rejected(trace, next(iter(refusals.values())))
    return _without_session(wish, q, trace, refusals[Channel.LIVE])


def _chosen(channel: Channel, wish: Wish, q: Question, trace: Trace, *, live_refusal: Reason | None = None) -> Decision:
    first = _step(channel, live_refusal)
    if channel is not Channel.LIVE:
        return Decision(steps=(first,), trace=trace)
    following = _following(wish, q)
    return Decision(steps=(first, following) if following else (first,), trace=trace)


def _following(wish: Wish, q: Question) -> Step | None:
    """What comes after a live offer that nobody claims."""
    if wish.fallback is FallbackMode.NONE:
        return None
    if wish.fallback is FallbackMode.LIVE_ONLY:
        return _step(Channel.LIVE)
    if Channel.BG in q.recipient.delivery_capabilities:
        return Step(channel=Channel.BG, mode=EffectiveMode.BACKGROUND_FALLBACK)
    if wish.channel is None:
        others = (each for each in _preference(q.recipient) if each is not Channel.LIVE)
        return next((_step(each) for each in others if _all_pass(ALL[each].ask(q))), None)
    return None


def _without_session(wish: Wish, q: Question, trace: Trace, reason: Reason) -> Decision:
    """No session can be offered the message: follow `live_fallback_mode`."""
    if wish.fallback is FallbackMode.LIVE_ONLY:
        waits = _fallback_gate(Channel.LIVE, Verdict.WAIT, Reason.WAITS_FOR_SESSION, wish)
        # The second step follows each offer that nobody claims: the message waits again.
        return Decision(
            steps=(_step(Channel.LIVE), _step(Channel.LIVE)),
            trace=(*trace, waits),
            reason=Reason.WAITS_FOR_SESSION,
            waits=True,
        )
    if wish.fallback is FallbackMode.NONE:
        refused = _fallback_gate(Channel.LIVE, Verdict.FAIL, Reason.FALLBACK_DISABLED, wish)
        return _ended((*trace, refused), reason)
    if Channel.BG not in q.recipient.delivery_capabilities:
        refused = _fallback_gate(Channel.BG, Verdict.FAIL, Reason.FALLBACK_NOT_DECLARED, wish)
        return _ended((*trace, refused), reason)
    return Decision(steps=(_step(Channel.BG, reason),), trace=trace + ALL[Channel.BG].ask(q))


def _step(channel: Channel, live_refusal: Reason | None = None) -> Step:
    """bg is a fallback when a session was attached and out of reach; with no session at all it is simply bg."""
    if channel is Channel.BG and live_refusal in _OUT_OF_REACH:
        return Step(channel=channel, mode=EffectiveMode.BACKGROUND_FALLBACK)
    return Step(channel=channel, mode=ALL[channel].mode)


def _preference(recipient: Agent) -> list[Channel]:
    declared = recipient.delivery_capabilities
    preferred = recipient.preferred_contact
    order = [each for each in Channel if each in declared and each is not preferred]
    return [preferred, *order] if preferred in declared and preferred else order


def _all_pass(answers: Trace) -> bool:
    return answers[-1].verdict is not Verdict.FAIL


def _fallback_gate(channel: Channel, verdict: Verdict, reason: Reason, wish: Wish) -> GateResult:
    facts = {"live_fallback_mode": wish.fallback.value}
    return GateResult(gate=Gate.FALLBACK, channel=channel, verdict=verdict, reason=reason, facts=facts)


def _rejected(trace: Trace, reason: Reason) -> Decision:
    return Decision(steps=(), trace=trace, ending=State.REJECTED, reason=reason)


def _ended(trace: Trace, reason: Reason) -> Decision:
    was_attached = reason in _OUT_OF_REACH
    ending = State.LIVE_UNCLAIMED_STALE_HEARTBEAT if was_attached else State.LIVE_UNCLAIMED_NO_SESSION
    return Decision(steps=(), trace=trace, ending=ending, reason=reason)
