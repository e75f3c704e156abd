"""`postroom tail`: the changes of messages as they come, or the events of one's log."""

import time
from collections.abc import Mapping
from typing import Annotated, Final

import typer

from cli.api import Api, ApiKey, JsonObject, Url, connect
from cli.event_tail import tail_events
from cli.failures import Misused
from cli.output import AsJson, one_line, print_line

PAGE: Final = 100
LAST: Final = 10
INTERVAL_S: Final = 0.5
CHANGES: Final = "Of messages that change"
EVENTS: Final = "Of events"
REMEMBERED: Final = 5_000


def tail(
    agent: Annotated[str | None, typer.Option(help="Only what concerns this agent.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Only messages in these states (a comma list).", rich_help_panel=CHANGES)
    ] = None,
    channel: Annotated[str | None, typer.Option(help="Only messages on this channel.", rich_help_panel=CHANGES)] = None,
    last: Annotated[
        int | None,
        typer.Option(
            min=0, max=PAGE, help=f"How many of the newest to begin with. Default: {LAST}.", rich_help_panel=CHANGES
        ),
    ] = None,
    interval_s: Annotated[
        float | None, typer.Option(min=0.1, help=f"How often to look. Default: {INTERVAL_S}.", rich_help_panel=CHANGES)
    ] = None,
    events: Annotated[
        bool, typer.Option("--events", help="The log of events instead: all of them, in order.", rich_help_panel=EVENTS)
    ] = False,
    kind: Annotated[
        str | None,
        typer.Option("--type", help="Only events of this type, as message.delivered.", rich_help_panel=EVENTS),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Begin behind the event of this number; 0: at the beginning. Default: from now on.",
            rich_help_panel=EVENTS,
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Print messages as they change, until Ctrl-C. What changes twice between two looks is printed once.

    With --events it prints one's log of events: everything that happens, each once, through lost connections.

    Examples:

    postroom tail --agent cue-mac-app

    postroom tail --events --type message.delivered --agent cue-notes

    postroom tail --events --after 0 --json | jq .type
    """
    changes = {"--state": state, "--channel": channel, "--last": last, "--interval-s": interval_s}
    refuse_mixed(changes if events else {"--type": kind, "--after": after}, events=events)
    with connect(url, api_key) as api:
        if events:
            tail_events(api, agent=agent, kind=kind, after=after, as_json=as_json)
        else:
            query = {"agent": agent, "state": state, "channel": channel}
            _tail_changes(api, query, LAST if last is None else last, interval_s or INTERVAL_S, as_json)


def refuse_mixed(foreign: Mapping[str, object], *, events: bool) -> None:
    """Raise `Misused` for an option that was given and belongs to the other kind of tail."""
    given = [name for name, value in foreign.items() if value is not None]
    if given:
        raise Misused(f"{given[0]} is not for --events" if events else f"{given[0]} is for --events only")


def _tail_changes(api: Api, query: JsonObject, last: int, interval_s: float, as_json: bool) -> None:
    seen: dict[str, str] = {}
    _remember(seen, _page(api, query)[last:])
    while True:
        for view in reversed(_page(api, query)):
            if seen.get(view["execution_id"]) != _mark(view):
                print_line(view) if as_json else print(_line(view), flush=True)
                _remember(seen, [view])
        time.sleep(interval_s)


def _page(api: Api, query: JsonObject) -> list[JsonObject]:
    """The newest executions, newest first."""
    answer = api.get("/v1/executions", **query, limit=PAGE)
    executions: list[JsonObject] = answer["executions"]
    return executions


def _remember(seen: dict[str, str], views: list[JsonObject]) -> None:
    for view in views:
        seen[view["execution_id"]] = _mark(view)
    while len(seen) > REMEMBERED:
        del seen[next(iter(seen))]


def _mark(view: JsonObject) -> str:
    return f"{view['state']} {view['updated_at']}"


def _line(view: JsonObject) -> str:
    to = view["to"]
    went = view["effective_delivery_mode"] or "-"
    subject = one_line(view.get("subject") or view["message"], 40)
    standing = f"{went}  {view['state']} ({view['reason']})"
    return f"{view['updated_at']}  {view['id']}  {to['slug']}@{to['owner']}  {standing}  {subject}"
