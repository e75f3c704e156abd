"""`postroom cues`: messages on a schedule or on demand."""

import json
from typing import Annotated, Any

import typer

from cli.api import ApiKey, JsonObject, Url, connect, segment
from cli.failures import Misused
from cli.output import AsJson, one_line, print_json, print_table

app = typer.Typer(help="Cues: messages on a schedule or on demand.", no_args_is_help=True)

CueId = Annotated[str, typer.Argument(metavar="CUE_ID")]
PayloadText = Annotated[str | None, typer.Option("--payload", help="A JSON object: what each fire carries.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you will recognise it by; borne once.")],
    to: Annotated[str | None, typer.Option(help="The agent it is sent to.")] = None,
    callback: Annotated[str | None, typer.Option(help="A URL it is posted to instead.")] = None,
    worker: Annotated[bool, typer.Option("--worker", help="Whichever worker takes it.")] = False,
    cron: Annotated[str | None, typer.Option(help="minute hour day month weekday")] = None,
    at: Annotated[str | None, typer.Option(help="One instant; without an offset in --timezone.")] = None,
    timezone: Annotated[str | None, typer.Option(help="IANA name; default UTC.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="The text.")] = None,
    subject: Annotated[str | None, typer.Option(help="Default: the name.")] = None,
    mode: Annotated[str | None, typer.Option(help="live, bg, inbox, webhook or auto.")] = None,
    payload: PayloadText = None,
    on_failure_to: Annotated[str | None, typer.Option(help="The agent told of failures.")] = None,
    pause_on_failure: Annotated[bool, typer.Option("--pause-on-failure", help="No fires after a failure.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Make a cue. Without --cron and --at it fires on demand.

    Example: postroom cues create report --to builder --cron "0 9 * * 1-5" --timezone Europe/Berlin -m "Write it"
    """
    schedule = _named(cron=cron, at=at, timezone=timezone)
    failure = _named(to=on_failure_to, pause=pause_on_failure or None)
    body = _named(
        name=name,
        to=to,
        callback={"url": callback} if callback else None,
        transport="worker" if worker else None,
        schedule=schedule or None,
        message=message,
        subject=subject,
        delivery_mode=mode,
        payload=_object(payload),
        on_failure=failure or None,
    )
    with connect(url, api_key) as api:
        _print(api.post("/v1/cues", body), as_json)


@app.command(name="list")
def list_(
    status: Annotated[str | None, typer.Option(help="active, paused or ended.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 100,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """List cues, newest first.

    Example: postroom cues list --status active
    """
    with connect(url, api_key) as api:
        answer = api.get("/v1/cues", status=status, limit=limit, offset=offset)
    if as_json:
        print_json(answer)
        return
    rows = [(each["id"], one_line(each["name"], 40), each["status"], _when(each), each["next_run"], each["run_count"],
             each["missed_count"], each["failed_count"]) for each in answer["cues"]]  # fmt: skip
    print_table(("id", "name", "status", "schedule", "next", "fired", "missed", "failed"), rows)


@app.command()
def show(cue: CueId, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Show one cue and its last fires.

    Example: postroom cues show cue_01jb0000000000000000000000
    """
    with connect(url, api_key) as api:
        _print(api.get(f"/v1/cues/{segment(cue)}"), as_json)


@app.command()
def pause(cue: CueId, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Fire nothing more until it is resumed.

    Example: postroom cues pause cue_01jb0000000000000000000000
    """
    with connect(url, api_key) as api:
        _print(api.post(f"/v1/cues/{segment(cue)}/pause"), as_json)


@app.command()
def resume(cue: CueId, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Go on with the next instant of the schedule.

    Example: postroom cues resume cue_01jb0000000000000000000000
    """
    with connect(url, api_key) as api:
        _print(api.post(f"/v1/cues/{segment(cue)}/resume"), as_json)


@app.command()
def fire(
    cue: CueId,
    payload: PayloadText = None,
    replace: Annotated[bool, typer.Option("--replace", help="--payload instead of the cue's own.")] = False,
    key: Annotated[str | None, typer.Option("--idempotency-key", help="Fire once under this key.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Fire now; prints the execution.

    Example: postroom cues fire cue_01jb0000000000000000000000 --payload '{"month": 3}'
    """
    strategy = "replace" if replace else None
    body = _named(payload_override=_object(payload), merge_strategy=strategy, idempotency_key=key)
    with connect(url, api_key) as api:
        fired = api.post(f"/v1/cues/{segment(cue)}/fire", body)
    if as_json:
        print_json(fired)
        return
    print(f"{fired['execution_id']}  {fired['status']}{'  (fired before)' if fired['replayed'] else ''}")


@app.command()
def delete(cue: CueId, url: Url = None, api_key: ApiKey = None) -> None:
    """Delete a cue. What it has sent goes on, but for what still waits for its own URL: that ends.

    Example: postroom cues delete cue_01jb0000000000000000000000
    """
    with connect(url, api_key) as api:
        api.call("DELETE", f"/v1/cues/{segment(cue)}")


def _named(**fields: Any) -> JsonObject:
    return {name: value for name, value in fields.items() if value is not None}


def _object(text: str | None) -> JsonObject | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Misused("--payload takes a JSON object")
    return value


def _when(cue: JsonObject) -> str:
    schedule = cue["schedule"]
    return f"{schedule['cron']} {schedule['timezone']}" if schedule["cron"] else schedule["at"] or "on demand"


def _print(cue: JsonObject, as_json: bool) -> None:
    if as_json:
        print_json(cue)
        return
    print(f"{cue['id']}  {one_line(cue['name'])}  {cue['status']}")
    print(f"{_when(cue)}; to {cue['to'] or cue['callback']['url'] or 'a worker'}; next {cue['next_run'] or '-'}")
    print(f"fired {cue['run_count']}, missed {cue['missed_count']}, failed {cue['failed_count']}")
    if cue.get("warning"):
        print(cue["warning"])
    if cue.get("webhook_secret"):
        print(f"webhook secret (not shown again): {cue['webhook_secret']}")
    for each in cue["executions"][:10]:
        print(f"  {each['scheduled_for']}  {each['status']:8}  {each['id']}  {one_line(each['error_message'])}")
