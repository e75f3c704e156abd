"""What an outcome report is worth: which route it is stored with, or why it is refused. Pure."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from contracts.records import JsonObject, Outcome
from contracts.words import Channel, DeliveryRoute, EffectiveMode, State
from router.channels import ALL
from router.execution import Execution
from router.fencing import is_under

LIVE = "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An outcome as reported. `lease` is the number of the lease the reporter worked under."""

    success: bool
    result: Any = None
    error: str | None = None
    metadata: JsonObject = field(default_factory=dict)
    executed_via: str | None = None
    lease: int | None = None
    evidence: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unacceptable:
    """The report is refused with this code."""

    code: str
    message: str


def judge(report: Report, execution: Execution, now: datetime) -> Outcome | Unacceptable:
    """The outcome to store, or the refusal.

    A report may repeat the recorded outcome; anything else after the end is refused. On a leased execution only the
    present lease counts. `executed_via=live` is believed of the session that claimed, and of nobody else: without a
    claim it is stored as `live_unverified`, with the reason.
    """
    match execution.state:
        case State.DELIVERED:
            return _again(report, execution)
        case State.CLAIMED:
            return _outcome(report, DeliveryRoute.LIVE, None)
        case State.LEASED:
            return _of_lease(report, execution)
        case State.IN_INBOX | State.INBOX_DELIVERED | State.INBOX_READ:
            return _unless_live(report, DeliveryRoute.INBOX)
        case State.OFFERED if report.executed_via == LIVE and not _window_closed(execution, now):
            return _outcome(report, DeliveryRoute.LIVE_UNVERIFIED, "no_live_claim")
        case State.SCHEDULED | State.WAITING | State.OFFERED | State.QUEUED | State.LIVE_UNCLAIMED_NO_FALLBACK:
            return _unclaimed(report, execution, now)
        case _:
            return Unacceptable(code="execution_closed", message="This execution has ended.")


def background_route(execution: Execution) -> DeliveryRoute:
    """The route of work done on the channel the execution is on, off any live session."""
    if execution.mode is EffectiveMode.BACKGROUND_FALLBACK:
        return DeliveryRoute.BACKGROUND_FALLBACK
    return ALL[execution.channel].route


def same_content(report: Report, outcome: Outcome) -> bool:
    told = (report.success, report.result, report.error, report.metadata, report.executed_via, report.evidence)
    recorded = (
        outcome.success,
        outcome.result,
        outcome.error,
        outcome.metadata,
        outcome.executed_via,
        outcome.evidence,
    )
    return told == recorded


def _unclaimed(report: Report, execution: Execution, now: datetime) -> Unacceptable:
    """Nobody may report here: too early, too late, or under a lease that is gone."""
    if execution.state is State.QUEUED and report.lease is not None:
        return _stale_lease()
    may_claim = execution.state is State.OFFERED and not _window_closed(execution, now)
    if may_claim or not execution.was_offered:
        return Unacceptable(code="not_claimed", message="Claim the execution before reporting its outcome.")
    return Unacceptable(code="claim_window_closed", message="The claim window has closed.")


def _of_lease(report: Report, execution: Execution) -> Outcome | Unacceptable:
    lease = execution.lease
    if lease is None or execution.channel is not Channel.BG or not is_under(lease, report.lease):
        return _stale_lease()
    return _unless_live(report, background_route(execution))


def _stale_lease() -> Unacceptable:
    return Unacceptable(code="stale_lease", message="This lease is not the present one.")


def _unless_live(report: Report, route: DeliveryRoute) -> Outcome:
    if report.executed_via == LIVE:
        return _outcome(report, DeliveryRoute.LIVE_UNVERIFIED, "no_live_claim")
    return _outcome(report, route, None)


def _again(report: Report, execution: Execution) -> Outcome | Unacceptable:
    if execution.outcome is not None and same_content(report, execution.outcome):
        return execution.outcome
    return Unacceptable(code="outcome_conflict", message="Another outcome is recorded for this execution.")


def _window_closed(execution: Execution, now: datetime) -> bool:
    return execution.claim_before is not None and now > execution.claim_before


def _outcome(report: Report, route: DeliveryRoute, why: str | None) -> Outcome:
    return Outcome(
        success=report.success,
        result=report.result,
        error=report.error,
        metadata=report.metadata,
        executed_via=report.executed_via,
        route=route,
        route_reason=why,
        evidence=report.evidence,
    )
