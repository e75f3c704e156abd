"""`postroom keys`: who may call the gateway."""

from typing import Annotated

import typer

from cli.api import ApiKey, Url, connect, segment
from cli.output import AsJson, print_json, print_table

app = typer.Typer(help="API keys: make, list, revoke.", no_args_is_help=True)


@app.command()
def create(
    owner: Annotated[
        str | None, typer.Option(help="Whose agents it speaks for; another owner than yours needs an admin key.")
    ] = None,
    name: Annotated[str, typer.Option(help="What you will recognise it by.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="It speaks for every owner.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Make a key. It is printed once, alone on standard output.

    Example: POSTROOM_API_KEY=$(postroom keys create --owner max --name laptop)
    """
    body = {"owner": owner, "name": name or None, "admin": admin or None}
    with connect(url, api_key) as api:
        made = api.post("/v1/keys", {field: value for field, value in body.items() if value is not None})
    if as_json:
        print_json(made)
        return
    typer.echo(f"key {made['key_id']} of owner {made['owner']}; it is not shown again:", err=True)
    print(made["key"])


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
    columns = ("key_id", "owner", "name", "admin", "created_at")
    print_table(columns, ([key.get(column) for column in columns] for key in answer["keys"]))


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="KEY_ID")], url: Url = None, api_key: ApiKey = None) -> None:
    """Revoke a key; it is dead everywhere within 5 seconds.

    Example: postroom keys revoke 4k2j9x0q1m7z
    """
    with connect(url, api_key) as api:
        api.call("DELETE", f"/v1/keys/{segment(key_id)}")
