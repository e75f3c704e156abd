"""`postroom presence`: whether an agent is there, once or for as long as one likes."""

import json
from typing import Annotated

import typer

from cli.api import Api, ApiKey, JsonObject, Url, connect, segment
from cli.inbox import AgentRef
from cli.output import AsJson, print_json, print_line
from cli.server_events import follow

TYPE = "agent.presence"
PAGE = 1_000


def presence(
    agent: AgentRef,
    watch: Annotated[bool, typer.Option("--watch", help="Go on: print each change, until Ctrl-C.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Say whether an agent is there: online, stale or offline, by its sessions.

    Examples:

    postroom presence cue-mac-app

    postroom presence cue-mac-app --watch
    """
    with connect(url, api_key) as api:
        # Before the present state: what changes behind that is printed, and nothing in between is missed.
        after = _told_up_to(api, agent) if watch else 0
        _print(api.get(f"/v1/agents/{segment(agent)}/presence"), as_json, is_first_of_many=watch)
        if watch:
            _watch(api, agent, after, as_json)


def _told_up_to(api: Api, agent: str) -> int:
    after, has_more = 0, True
    while has_more:
        page = api.get("/v1/events", agent=agent, type=TYPE, after=after, limit=PAGE)
        after, has_more = int(page["next_after"]), bool(page["has_more"])
    return after


def _watch(api: Api, agent: str, after: int, as_json: bool) -> None:
    for each in follow(api, "/v1/events/stream", agent=agent, type=TYPE, after=after):
        event: JsonObject = json.loads(each.data)
        print_line(event) if as_json else print(_line(event), flush=True)


def _line(event: JsonObject) -> str:
    data, sessions = event["data"], event["data"]["sessions"]
    change = f"{data['from']} -> {data['to']}"
    return f"{event['time']}  {change:<20}  sessions {sessions['connected']}, overdue {sessions['overdue']}"


def _print(found: JsonObject, as_json: bool, *, is_first_of_many: bool) -> None:
    if as_json:
        print_line(found) if is_first_of_many else print_json(found)
        return
    seen = found["last_seen_at"]
    print(f"{found['address']}  {found['presence']}  {f'last seen {seen}' if seen else 'never seen'}", flush=True)
