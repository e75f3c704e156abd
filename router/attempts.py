"""The attempts at one execution, out of its message's events: when, under which lease, and what came of each. Pure.

Bounded by the ladder: a webhook is tried eight times, and 4 KiB of each answer are kept.
"""

from collections.abc import Iterator
from typing import Any

from contracts.events import AttemptFailed, Ended, Event, History, Leased, OutcomeRecorded
from router.explain import View, instant


def attempt_views(history: History, number: int, *, with_responses: bool) -> list[View]:
    """Oldest first. What a receiver said is its owner's business: `with_responses` False leaves it out."""
    views: list[View] = []
    for event in _of_execution(history, number):
        if isinstance(event, Leased):
            views.append(_begun(event))
        elif views and views[-1]["ended_at"] is None:
            views[-1].update(_settled(event, with_responses))
    return views


def _of_execution(history: History, number: int) -> Iterator[Event]:
    kinds = Leased | AttemptFailed | OutcomeRecorded | Ended
    return (each.event for each in history.events if each.event.execution == number and isinstance(each.event, kinds))


def _begun(event: Leased) -> View:
    return {
        "number": event.lease.number,
        "holder": event.lease.holder,
        "at": instant(event.lease.leased_at),
        "ended_at": None,
        "succeeded": None,
        "status": None,
        "latency_ms": None,
        "error": None,
        "response": None,
        "retry_at": None,
    }


def _settled(event: Event, with_responses: bool) -> View:
    """An attempt without an answer on record was lost with its worker, or was no webhook's."""
    answer = getattr(event, "answer", None)
    view: dict[str, Any] = {"ended_at": instant(event.at), "succeeded": isinstance(event, OutcomeRecorded)}
    if isinstance(event, AttemptFailed):
        view |= {"error": event.reason.value, "retry_at": instant(event.retry_at)}
    elif isinstance(event, Ended):
        view |= {"error": event.reason.value}
    if answer is not None:
        view |= {"status": answer.status, "latency_ms": answer.latency_ms, "error": answer.error}
        view["response"] = answer.response if with_responses else None
    return view
