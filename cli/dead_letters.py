"""`postroom dead-letters`: what came to nothing, delivered once more or discarded, after a look at what that means."""

import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from cli.api import Api, ApiKey, JsonObject, Url, connect
from cli.failures import Misused
from cli.output import AsJson, complain, console, one_line, print_json, print_table
from cli.redrives import watch_until_ended

app = typer.Typer(help="Messages that came to nothing: list, redrive, discard.", no_args_is_help=True)

MessageIds = Annotated[
    list[str] | None, typer.Argument(metavar="[MESSAGE_ID]...", help="These; without any, all that fit the options.")
]
AgentOption = Annotated[str | None, typer.Option("--agent", help="Of this agent: agent_…, slug@owner, or slug.")]
StateOption = Annotated[
    str | None, typer.Option("--state", help="A comma list of final states; `delivered`: where the receiver failed.")
]
ReasonOption = Annotated[str | None, typer.Option("--reason-code", help="A comma list of reasons, such as ttl_passed.")]
ChannelOption = Annotated[str | None, typer.Option("--channel", help="live, bg, webhook or inbox.")]
SinceOption = Annotated[str | None, typer.Option("--since", help="Ended at this instant (RFC 3339) or later.")]
UntilOption = Annotated[str | None, typer.Option("--until", help="Ended at this instant (RFC 3339) or earlier.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Go on without asking.")]
PAGE: Final = 100


@app.command(name="list")
def list_(
    agent: AgentOption = None,
    state: StateOption = None,
    reason: ReasonOption = None,
    channel: ChannelOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE)] = 50,
    count: Annotated[bool, typer.Option("--count", help="Print only how many there are.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """List dead letters, newest first.

    Example: postroom dead-letters list --agent cue-mac-app --since 2026-01-31T00:00:00Z
    """
    asked = {
        "agent": agent,
        "state": state,
        "reason": reason,
        "channel": channel,
        "since": since,
        "until": until,
    }
    with connect(url, api_key) as api:
        answer = api.get("/v1/dead-letters", **asked, **({"count_only": "true"} if count else {"limit": limit}))
    if as_json:
        print_json(answer)
    elif count:
        print(answer["count"] if answer["is_exact"] else f"at least {answer['count']}")
    else:
        columns = ("id", "ended_at", "agent", "state", "reason", "attempts", "last_error")
        print_table(columns, map(_row, answer["dead_letters"]))


@app.command()
def redrive(
    message_ids: MessageIds = None,
    agent: AgentOption = None,
    state: StateOption = None,
    reason: ReasonOption = None,
    channel: ChannelOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    rate_per_s: Annotated[float, typer.Option("--rate-per-s", min=1, max=500, help="Never faster than this.")] = 50,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would do, and stop.")] = False,
    yes: Yes = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Deliver dead letters once more; what that would do is shown first. Ctrl-C leaves it running.

    Example: postroom redrive --agent cue-mac-app --state bg_exhausted
    """
    chosen = _selection(message_ids, agent, state, reason, channel, since, until)
    with connect(url, api_key) as api:
        survey = api.post("/v1/dead-letters/redrive", chosen | {"dry_run": True})
        if not _goes_on(survey, "redrive", yes=yes, dry_run=dry_run, as_json=as_json):
            return
        made = api.post("/v1/dead-letters/redrive", chosen | {"rate_per_s": rate_per_s})
        ended = watch_until_ended(api, made) if wait else made
    if as_json:
        print_json(ended)
    elif not wait:
        print(f"{made['id']} is under way; follow it with: postroom redrives watch {made['id']}")


@app.command()
def discard(
    message_ids: MessageIds = None,
    why: Annotated[str, typer.Option("--why", help="Why nothing more is wanted of them; it is kept.")] = "",
    agent: AgentOption = None,
    state: StateOption = None,
    reason: ReasonOption = None,
    channel: ChannelOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show which, and stop.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Discard dead letters for good; which ones is shown first.

    Example: postroom dead-letters discard --state expired_unread --why "The campaign is over."
    """
    if not why.strip():
        raise Misused("say why with --why TEXT; it is kept with each message")
    chosen = _selection(message_ids, agent, state, reason, channel, since, until)
    with connect(url, api_key) as api:
        survey = api.post("/v1/dead-letters/redrive", chosen | {"dry_run": True})
        if not _goes_on(survey, "discard", yes=yes, dry_run=dry_run, as_json=as_json):
            return
        result = _discard_all(api, chosen | {"reason": why})
    print_json(result) if as_json else print(f"discarded {result['discarded']}, refused {result['refused']}")


def _discard_all(api: Api, body: JsonObject) -> JsonObject:
    total: JsonObject = {"discarded": 0, "refused": 0}
    while True:
        result = api.post("/v1/dead-letters/discard", body)
        for name in total:
            total[name] += result[name]
        # What is refused stays, and would be found again for ever.
        if not result["has_more"] or not result["discarded"]:
            return total
        complain(f"discarded {total['discarded']} …")


def _goes_on(survey: JsonObject, verb: str, *, yes: bool, dry_run: bool, as_json: bool) -> bool:
    """Show what would happen, and find out whether it is to happen."""
    if as_json and (dry_run or not yes):
        print_json(survey)
        return False
    if not as_json:
        _show(survey, verb)
    if dry_run or not survey["matched"]:
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        complain(f"nothing was done; say --yes to {verb} them")
        return False
    return typer.confirm(f"{verb.capitalize()} them?")


def _show(survey: JsonObject, verb: str) -> None:
    many = "" if survey["matched_is_exact"] else "at least "
    print(f"{many}{survey['matched']} to {verb}" + (f", {survey['left_out']} left out" if survey["left_out"] else ""))
    columns = ("slug", "state", "reason", "count")
    if survey["by"]:
        print_table(columns, ([each[column] for column in columns] for each in survey["by"]))
    if verb == "redrive":
        screen = console()
        for each in survey["samples"]:
            went = each["effective_delivery_mode"] or "nowhere"
            screen.print(f"{each['message_id']} now: {each['would']} · {went} · {each['state']} ({each['reason']})")


def _selection(
    message_ids: Sequence[str] | None,
    agent: str | None,
    state: str | None,
    reason: str | None,
    channel: str | None,
    since: str | None,
    until: str | None,
) -> JsonObject:
    named = {"agent": agent, "channel": channel, "since": since, "until": until}
    wanted: JsonObject = {name: value for name, value in named.items() if value is not None}
    wanted |= {name: text.split(",") for name, text in (("states", state), ("reasons", reason)) if text is not None}
    if message_ids and wanted:
        raise Misused("name messages, or say which by options; not both")
    return {"message_ids": list(message_ids)} if message_ids else {"filter": wanted}


def _row(view: JsonObject) -> list[object]:
    cells = [view["id"], view["ended_at"], view["to"]["slug"], view["state"], view["reason"], view["attempts"]]
    return [*cells, one_line(view["last_error"]) or None]
