"""`postroom tail --events`: one's log of events as it grows."""

import json
from collections.abc import Iterator

from cli.api import Api, JsonObject
from cli.output import one_line, print_line
from cli.server_events import follow

TOLD_FIRST = (
    *("state", "reason", "effective_delivery_mode", "channel", "gate", "bundle_count"),
    *("from", "to", "label", "slug", "name"),
)
"""What of an event's data a line shows, where it is there."""


def tail_events(api: Api, *, agent: str | None, kind: str | None, after: int | None, as_json: bool) -> None:
    """Print events behind `after`, from now on without it, until Ctrl-C."""
    for event in _events(api, agent, kind, after):
        print_line(event) if as_json else print(_line(event), flush=True)


def _events(api: Api, agent: str | None, kind: str | None, after: int | None) -> Iterator[JsonObject]:
    for each in follow(api, "/v1/events/stream", agent=agent, type=kind, after=after):
        yield json.loads(each.data)


def _line(event: JsonObject) -> str:
    data = event["data"]
    facts = [f"{name}={one_line(str(data[name]), 40)}" for name in TOLD_FIRST if data.get(name) is not None]
    subject = f"  [{one_line(data['subject'], 40)}]" if data.get("subject") else ""
    return f"{event['seq']:>8}  {event['time']}  {event['type']:<26}  {event['subject']}  {' '.join(facts)}{subject}"
