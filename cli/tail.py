"""`postroom tail`: the changes of messages as they come."""

import time
from typing import Annotated, Final

import typer

from cli.api import Api, ApiKey, JsonObject, Url, connect
from cli.output import AsJson, one_line, print_line

PAGE: Final = 100
REMEMBERED: Final = 5_000


def tail(
    agent: Annotated[str | None, typer.Option(help="Only messages to this agent.")] = None,
    state: Annotated[str | None, typer.Option(help="Only messages in these states (a comma list).")] = None,
    channel: Annotated[str | None, typer.Option(help="Only messages on this channel.")] = None,
    last: Annotated[int, typer.Option(min=0, max=PAGE, help="How many of the newest to begin with.")] = 10,
    interval_s: Annotated[float, typer.Option(min=0.1, help="How often to look.")] = 0.5,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Print messages as they change, until Ctrl-C. What changes twice between two looks is printed once.

    Example: postroom tail --agent cue-mac-app
    """
    with connect(url, api_key) as api:
        seen: dict[str, str] = {}
        _remember(seen, _page(api, agent, state, channel)[last:])
        while True:
            for view in reversed(_page(api, agent, state, channel)):
                if seen.get(view["execution_id"]) != _mark(view):
                    print_line(view) if as_json else print(_line(view), flush=True)
                    _remember(seen, [view])
            time.sleep(interval_s)


def _page(api: Api, agent: str | None, state: str | None, channel: str | None) -> list[JsonObject]:
    """The newest executions, newest first."""
    answer = api.get("/v1/executions", agent=agent, state=state, channel=channel, limit=PAGE)
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
