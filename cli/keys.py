"""`postroom keys`: who may call the gateway."""

from typing import Annotated, Any

import typer

from cli.api import ApiKey, Url, connect, segment
from cli.output import AsJson, print_json, print_table

app = typer.Typer(help="API keys: make, list, rotate, revoke.", no_args_is_help=True)


@app.command()
def create(
    owner: Annotated[
        str | None, typer.Option(help="Whose agents it speaks for; another owner than yours needs an admin key.")
    ] = None,
    name: Annotated[str, typer.Option(help="What you will recognise it by.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="It speaks for every owner.")] = False,
    scope: Annotated[
        list[str] | None, typer.Option(help="What it is limited to, e.g. messages:send; may be given again.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="The one agent it acts as.")] = None,
    service_account: Annotated[str | None, typer.Option(help="The service account it belongs to.")] = None,
    expires_in: Annotated[int | None, typer.Option(min=1, help="Seconds until it counts no more.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Make a key. It is printed once, alone on standard output.

    Example: POSTROOM_API_KEY=$(postroom keys create --agent builder --scope executions:claim --expires-in 86400)
    """
    body = {
        "owner": owner,
        "name": name or None,
        "admin": admin or None,
        "scopes": scope or None,
        "agent": agent,
        "service_account_id": service_account,
        "expires_in_s": expires_in,
    }
    with connect(url, api_key) as api:
        made = api.post("/v1/keys", {field: value for field, value in body.items() if value is not None})
    _print_made(made, as_json)


@app.command(name="list")
def list_(as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """List keys; their secrets are not kept anywhere.

    Example: postroom keys list
    """
    with connect(url, api_key) as api:
        answer = api.get("/v1/keys")
    if as_json:
        print_json(answer)
        return
    columns = ("key_id", "owner", "name", "limits", "created_at", "expires_at", "last_used_at")
    print_table(
        columns, ([{**key, "limits": _limits(key)}.get(column) for column in columns] for key in answer["keys"])
    )


@app.command()
def rotate(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID")],
    overlap: Annotated[int | None, typer.Option(min=0, help="Seconds for which the old key counts beside it.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Make a successor with the same limits; the old key counts for a day more, or for as long as you say.

    Example: postroom keys rotate 4k2j9x0q1m7z --overlap 3600
    """
    body = {} if overlap is None else {"overlap_s": overlap}
    with connect(url, api_key) as api:
        made = api.post(f"/v1/keys/{segment(key_id)}/rotate", body)
    if not as_json:
        typer.echo(f"key {made['previous_key_id']} counts until {made['previous_expires_at']}", err=True)
    _print_made(made, as_json)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="KEY_ID")], url: Url = None, api_key: ApiKey = None) -> None:
    """Revoke a key; it is dead everywhere within 5 seconds.

    Example: postroom keys revoke 4k2j9x0q1m7z
    """
    with connect(url, api_key) as api:
        api.call("DELETE", f"/v1/keys/{segment(key_id)}")


def _print_made(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    typer.echo(f"key {made['key_id']} of owner {made['owner']}; it is not shown again:", err=True)
    print(made["key"])


def _limits(key: dict[str, Any]) -> str:
    """What a key may, in a few words."""
    if key["admin"]:
        return "admin"
    scopes = "all" if key["scopes"] is None else " ".join(key["scopes"]) or "none"
    confines = key["agent_id"] or key["service_account_id"]
    return f"{scopes} @ {confines}" if confines else scopes
