"""What happens when a deadline passes: the event that keeps a message from being silently stuck. Pure."""

from dataclasses import dataclass
from datetime import datetime

from contracts.events import AttemptFailed, Ended, FellBack
from contracts.records import GateResult, Step, Trace, WebhookAnswer
from contracts.words import Channel, Gate, Reason, State, Verdict
from router.channels import ALL
from router.execution import Execution
from router.explain import instant
from router.gates import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt came to nothing, as its worker or the clock tells it."""

    reason: Reason
    detail: str | None = None
    http_status: int | None = None
    latency_ms: int | None = None
    answer: WebhookAnswer | None = None
    asked_s: float | None = None
    is_final: bool = False


def on_deadline(
    execution: Execution, q: Question | None, now: datetime, dice: float, by: str
) -> FellBack | AttemptFailed | Ended | None:
    """The event that is due at `now`, or None when nothing is.

    `q` lets the gates of a fallback channel be asked with present facts; None when the agent is gone.
    """
    if execution.due_at is None or now <= execution.due_at:
        return None
    match execution.state:
        case State.OFFERED:
            return close_window(execution, q, now, by)
        case State.CLAIMED:
            return _end(execution, State.OUTCOME_MISSING, Reason.OUTCOME_DEADLINE_PASSED, now, by)
        case State.LEASED:
            return failed_attempt(execution, Failure(reason=Reason.LEASE_EXPIRED), now, dice, by)
        case State.SCHEDULED | State.QUEUED if now <= execution.expires_at:
            return None
        case State.SCHEDULED | State.INBOX_READ:
            return _end(execution, State.EXPIRED, Reason.TTL_PASSED, now, by)
        case _:
            return _end(execution, _expired(execution), Reason.TTL_PASSED, now, by)


def close_window(execution: Execution, q: Question | None, now: datetime, by: str) -> FellBack | Ended:
    """Nobody claimed: take the next step of the plan, or end."""
    facts = {"claim_before": instant(execution.claim_before)}
    closed = GateResult(
        gate=Gate.CLAIM_WINDOW,
        channel=Channel.LIVE,
        verdict=Verdict.FAIL,
        reason=Reason.CLAIM_WINDOW_CLOSED,
        facts=facts,
    )
    if not execution.plan:
        state = State.LIVE_UNCLAIMED_NO_FALLBACK
        return Ended(
            at=now,
            by=by,
            execution=execution.number,
            state=state,
            reason=Reason.CLAIM_WINDOW_CLOSED,
            trace=(closed, *_no_fallback()),
        )
    step = execution.plan[0]
    return FellBack(
        at=now,
        by=by,
        execution=execution.number,
        step=step,
        trace=(closed, *_gates_of(step, q)),
        max_attempts=ALL[step.channel].ladder.max_attempts,
    )


def failed_attempt(
    execution: Execution, failure: Failure, now: datetime, dice: float, by: str
) -> AttemptFailed | Ended:
    """The lease came to nothing: queue again after a pause, or end when the ladder is used up."""
    rules = ALL[execution.channel]
    failed = execution.failed_attempts + 1
    if failure.is_final or failed >= execution.max_attempts:
        return Ended(
            at=now,
            by=by,
            execution=execution.number,
            state=rules.exhausted,
            reason=failure.reason if failure.is_final else Reason.ATTEMPTS_EXHAUSTED,
            detail=failure.detail or failure.reason.value,
            http_status=failure.http_status,
            latency_ms=failure.latency_ms,
            answer=failure.answer,
        )
    return AttemptFailed(
        at=now,
        by=by,
        execution=execution.number,
        number=execution.leases,
        reason=failure.reason,
        detail=failure.detail,
        http_status=failure.http_status,
        latency_ms=failure.latency_ms,
        answer=failure.answer,
        retry_at=rules.ladder.retry_at(failed, now, dice, asked_s=failure.asked_s),
    )


def _expired(execution: Execution) -> State:
    """A message whose time is up after failed attempts ran out of them; one nobody touched simply expired."""
    rules = ALL[execution.channel]
    return rules.exhausted if execution.failed_attempts else rules.expired


def _gates_of(step: Step, q: Question | None) -> Trace:
    return () if q is None or step.channel is Channel.LIVE else ALL[step.channel].ask(q)


def _no_fallback() -> Trace:
    return (
        GateResult(
            gate=Gate.FALLBACK, channel=Channel.LIVE, verdict=Verdict.FAIL, reason=Reason.FALLBACK_DISABLED, facts={}
        ),
    )


def _end(execution: Execution, state: State, reason: Reason, now: datetime, by: str) -> Ended:
    return Ended(at=now, by=by, execution=execution.number, state=state, reason=reason)
