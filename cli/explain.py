"""`postroom explain`: where a message went, and why."""

from typing import Annotated

import typer

from cli.api import Api, ApiKey, JsonObject, Url, connect, segment
from cli.output import AsJson, console, print_json


def explain(
    id_: Annotated[str, typer.Argument(metavar="ID", help="msg_… or exec_…")],
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Print which way a message took and why: the plan, every gate's answer, the history, and how it ended.

    Example: postroom explain msg_01k9zq6v2m8s4t3x7w5r0y1b2c
    """
    with connect(url, api_key) as api:
        view = full_view(api, id_)
    if as_json:
        print_json(view)
    else:
        print_explanation(view)


def full_view(api: Api, id_: str) -> JsonObject:
    """The execution's view with its events, found by message or execution id."""
    if id_.startswith("msg_"):
        id_ = api.get(f"/v1/messages/{segment(id_)}")["execution_id"]
    return api.get(f"/v1/executions/{segment(id_)}")


def print_explanation(view: JsonObject) -> None:
    from cli.explanation import message_lines

    screen = console()
    for line in message_lines(view):
        screen.print(line)
