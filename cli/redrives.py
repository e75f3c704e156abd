"""`postroom redrives`: the redrives under way and the last ones: list, watch, cancel."""

import sys
import time
from typing import Annotated, Final

import typer

from cli.api import Api, ApiKey, JsonObject, Url, connect, segment
from cli.output import AsJson, complain, print_json, print_table

app = typer.Typer(help="Redrives under way, and the last ones: list, watch, cancel.", no_args_is_help=True)

RedriveId = Annotated[str, typer.Argument(metavar="REDRIVE_ID")]
LOOK_EVERY_S: Final = 0.5
ENDED: Final = ("done", "cancelled")


@app.command(name="list")
def list_(as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """List redrives, the newest first.

    Example: postroom redrives list
    """
    with connect(url, api_key) as api:
        answer = api.get("/v1/redrives")
    if as_json:
        print_json(answer)
        return
    columns = ("id", "state", "created_at", "matched", "done", "redriven", "refused", "moved_on")
    print_table(columns, ([each[column] for column in columns] for each in answer["redrives"]))


@app.command()
def watch(redrive_id: RedriveId, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Follow a redrive to its end. Ctrl-C leaves it running.

    Example: postroom redrives watch redrive_01jb…
    """
    with connect(url, api_key) as api:
        ended = watch_until_ended(api, api.get(f"/v1/redrives/{segment(redrive_id)}"))
    if as_json:
        print_json(ended)


@app.command()
def cancel(redrive_id: RedriveId, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Redrive no more; what was redriven stays so.

    Example: postroom redrives cancel redrive_01jb…
    """
    with connect(url, api_key) as api:
        view = api.post(f"/v1/redrives/{segment(redrive_id)}/cancel")
    print_json(view) if as_json else print(f"{view['id']}: {view['state']}, {view['done']} done")


def watch_until_ended(api: Api, view: JsonObject) -> JsonObject:
    """Tell on standard error how far a redrive gets, until it has ended."""
    told = None
    try:
        while True:
            if (now := _progress(view)) != told:
                complain(now)
                told = now
            if view["state"] in ENDED:
                return view
            time.sleep(LOOK_EVERY_S)
            view = api.get(f"/v1/redrives/{segment(view['id'])}")
    except KeyboardInterrupt:
        print(
            f"\n{view['id']} goes on. Follow it: postroom redrives watch {view['id']}"
            f"\nStop it: postroom redrives cancel {view['id']}",
            file=sys.stderr,
        )
        raise


def _progress(view: JsonObject) -> str:
    parts = [f"{view['done']}/{view['matched']}", f"redriven {view['redriven']}"]
    parts += [f"refused {n} ({reason})" for reason, n in view["refused_by_reason"].items()]
    parts += [f"moved on {view['moved_on']}"] if view["moved_on"] else []
    return f"{view['id']} {view['state']}: {', '.join(parts)}"
