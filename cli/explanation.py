"""A message's way as a person reads it: what was asked, the plan, every gate's answer, what happened, how it ended.

msg_… → cue-mac-app@max  "Quick question"
asked live, else background · went background_fallback · delivered (outcome_reported)
plan  1 live  2 bg as background_fallback
      gate              channel  verdict  reason           facts
✗     heartbeat_fresh   live     fail     heartbeat_stale  age_s=301 max_age_s=120
…
  +0.000 s  accepted    key:…
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from cli.output import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

View = dict[str, Any]

MARKS: Final = {"pass": ("✓", "green"), "wait": ("…", "yellow"), "fail": ("✗", "red")}
_EVENT_FRAME: Final = frozenset({"seq", "at", "by", "type", "execution", "trace", "decision"})


def message_lines(view: View) -> "Iterator[RenderableType]":
    """Everything `explain` prints of a message view with `events`, in order."""
    from rich.text import Text

    yield _header(view)
    yield Text(_standing(view))
    yield from map(Text, _context(view))
    yield from map(Text, _selection(view.get("trace") or []))
    if plan := _plan_of_events(view.get("events") or []):
        yield Text(f"plan  {_plan(plan)}")
    yield trace_table(view.get("trace") or [])
    yield Text()
    yield from _history(view)
    yield Text(f"ended  {_ending(view)}" if view["terminal"] else f"open  {_waiting(view)}")


def route_lines(view: View) -> "Iterator[RenderableType]":
    """What `route` prints of a decision that was asked for and not taken."""
    from rich.text import Text

    to = view["to"]
    yield Text(f"{to['slug']}@{to['owner']}  would be sent {view.get('effective_delivery_mode') or 'nowhere'}")
    yield Text(f"asked {_wish(view)} · state {view['state']} ({view['reason']})")
    yield from map(Text, _selection(view.get("trace") or []))
    yield Text(f"plan  {_plan(view['plan'])}")
    yield trace_table(view.get("trace") or [])


def trace_table(trace: Sequence[View]) -> "RenderableType":
    """One row per gate that was asked."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "gate", "channel", "verdict", "reason", "facts", box=None, pad_edge=False, header_style="bold")
    for each in trace:
        mark, colour = MARKS.get(each["verdict"], ("?", ""))
        facts = " ".join(f"{name}={_fact(value)}" for name, value in (each.get("facts") or {}).items())
        cells = (each["gate"], each.get("channel") or "-", each["verdict"], each["reason"], facts)
        table.add_row(Text(mark, colour), *map(Text, cells))
    return table


def _header(view: View) -> "Text":
    from rich.text import Text

    to = view["to"]
    subject = f'  "{one_line(view["subject"])}"' if view.get("subject") else ""
    return Text(f"{view['id']} → {to['slug']}@{to['owner']}{subject}", style="bold")


def _standing(view: View) -> str:
    went = view.get("effective_delivery_mode") or "nowhere"
    route = f" · route {view['delivery_route']}" if view.get("delivery_route") else ""
    return f"{view['execution_id']} · asked {_wish(view)} · went {went}{route} · {view['state']} ({view['reason']})"


def _context(view: View) -> Iterator[str]:
    """Who sent it and what led to it, as far as there is anything to say."""
    facts = [_sender(view.get("from") or {})]
    if view.get("reply_to"):
        facts.append(f"answers {view['reply_to']}, hop {view['hop']}")
    if view.get("auto_reply"):
        facts.append("an automatic reply")
    if view.get("priority_downgraded"):
        facts.append(f"priority {view['priority']}, lowered")
    if told := " · ".join(filter(None, facts)):
        yield told
    if view.get("chain"):
        yield f"chain  {' → '.join(view['chain'])}"


def _sender(sender: View) -> str:
    name = sender.get("slug") or sender.get("agent_id")
    return f"from {name}@{sender['owner']}" if name else ""


def _selection(trace: Sequence[View]) -> Iterator[str]:
    """How the receiver came to be chosen, where it was."""
    for facts in (each["facts"] for each in trace if each["gate"] == "selection"):
        where = " and ".join(f"{name} is {_values(value)}" for name, value in facts["where"].items())
        chosen = f"{facts['rank']} of {facts['reachable']} that can be reached"
        yield f"chosen in {facts['project']} where {one_line(where, 200)}"
        yield f"  {chosen}, {facts['matched']} that fit, {facts['considered']} looked at · {_state_of(facts)}"
        others = [f"{one_line(each['slug'])} ({_state_of(each)})" for each in facts.get("runners_up", [])]
        if others:
            yield f"  then {', '.join(others)}"


def _values(value: Any) -> str:
    return " or ".join(map(_fact, value)) if isinstance(value, list) else _fact(value)


def _state_of(facts: View) -> str:
    busy = facts["open_executions"]
    return f"{facts['presence'] or 'presence unknown'}, {'?' if busy is None else busy} open"


def _waiting(view: View) -> str:
    until = f"until {view.get('deadline_at')}"
    return f"{until} · next attempt at {view['retry_at']}" if view.get("retry_at") else until


def _wish(view: View) -> str:
    mode = str(view["delivery_mode"])
    return f"{mode}, else {view['live_fallback_mode']}" if mode in ("live", "auto") else mode


def _plan_of_events(events: Sequence[View]) -> list[View]:
    return next((each["decision"]["plan"] for each in events if each.get("decision")), [])


def _plan(steps: Sequence[View]) -> str:
    return "  ".join(f"{number} {_step(step)}" for number, step in enumerate(steps, 1)) or "(nothing to try)"


def _step(step: View) -> str:
    return str(step["channel"]) if step["mode"] == step["channel"] else f"{step['channel']} as {step['mode']}"


def _history(view: View) -> "Iterator[Text]":
    from rich.text import Text

    events = view.get("events") or []
    start = _instant(events[0]["at"]) if events else None
    for event in events:
        assert start is not None
        after_s = (_instant(event["at"]) - start).total_seconds()
        yield Text(f"  {f'+{after_s:.3f} s':>12}  {event['type']:<17} by {event['by']}  {_event_facts(event)}".rstrip())


def _event_facts(event: View) -> str:
    facts = {name: value for name, value in event.items() if name not in _EVENT_FRAME and value not in (None, {}, [])}
    return one_line(" ".join(f"{name}={_fact(value)}" for name, value in facts.items()), 200)


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        # Instants inside an event are near the event's own, which stands at the beginning of its line.
        told = {name: each for name, each in value.items() if each not in (None, {}) and not name.endswith("_at")}
        return "{" + " ".join(f"{name}={_fact(each)}" for name, each in told.items()) + "}"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}"
    if isinstance(value, list):
        return "[" + " ".join(map(_fact, value)) + "]"
    return one_line(str(value))


def _ending(view: View) -> str:
    outcome = view.get("outcome")
    ended = f"{view['state']} ({view['reason']}) after {_duration_s(view):.3f} s"
    if discarded := view.get("discarded"):
        return f"{ended} · discarded: {one_line(discarded['reason'])}"
    if outcome is None:
        return ended
    said = "success" if outcome["success"] else f"failure: {one_line(outcome.get('error'))}"
    via = f" · executed via {outcome['executed_via']}" if outcome.get("executed_via") else ""
    doubt = f" ({outcome['route_reason']})" if outcome.get("route_reason") else ""
    return f"{ended} · {said}{via} · route {outcome.get('route')}{doubt}"


def _duration_s(view: View) -> float:
    return (_instant(view["ended_at"]) - _instant(view["accepted_at"])).total_seconds()


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
