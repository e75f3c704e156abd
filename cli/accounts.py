"""`postroom accounts`: service accounts, whose keys workers call with, and which back agents."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.api import Api, ApiKey, JsonObject, Url, connect, segment
from cli.output import AsJson, print_json, print_table

app = typer.Typer(help="Service accounts: create, list, disable, enable, delete.", no_args_is_help=True)


class Status(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


AccountId = Annotated[str, typer.Argument(metavar="ACCOUNT_ID", help="sa_…")]
Project = Annotated[str | None, typer.Option("--project", help="Another owner than yours; needs an admin key.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Borne once in a project, and for life.")],
    display_name: Annotated[str | None, typer.Option("--display-name", help="For people.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    project: Project = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Make a service account. Its keys come from `postroom keys create`.

    Example: postroom accounts create summarizers
    """
    body = {"name": name, "display_name": display_name, "description": description}
    with connect(url, api_key) as api:
        made = api.post(_path(api, project), {field: value for field, value in body.items() if value is not None})
    _print(made, as_json)


@app.command(name="list")
def list_(
    status: Annotated[Status | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 200,
    cursor: Annotated[str | None, typer.Option(help="Where the last page ended.")] = None,
    project: Project = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """List service accounts, the oldest first.

    Example: postroom accounts list --status disabled
    """
    with connect(url, api_key) as api:
        answer = api.get(_path(api, project), status=status and status.value, limit=limit, cursor=cursor)
    if as_json:
        print_json(answer)
        return
    columns = ("id", "name", "display_name", "status", "created_at")
    print_table(columns, ([each[column] for column in columns] for each in answer["items"]))
    if answer["next_cursor"]:
        typer.echo(f"more: --cursor {answer['next_cursor']}", err=True)


@app.command()
def disable(account: AccountId, project: Project = None, url: Url = None, api_key: ApiKey = None) -> None:
    """Disable a service account: its keys do not count, and its agents are given nothing new.

    Example: postroom accounts disable sa_01jb0000000000000000000000
    """
    _set_status(account, Status.DISABLED, project, url, api_key)


@app.command()
def enable(account: AccountId, project: Project = None, url: Url = None, api_key: ApiKey = None) -> None:
    """Undo `disable`.

    Example: postroom accounts enable sa_01jb0000000000000000000000
    """
    _set_status(account, Status.ACTIVE, project, url, api_key)


@app.command()
def delete(account: AccountId, project: Project = None, url: Url = None, api_key: ApiKey = None) -> None:
    """Delete a service account that backs no agent and has no keys that count.

    Example: postroom accounts delete sa_01jb0000000000000000000000
    """
    with connect(url, api_key) as api:
        api.call("DELETE", f"{_path(api, project)}/{segment(account)}")


def _set_status(account: str, status: Status, project: str | None, url: str | None, api_key: str | None) -> None:
    with connect(url, api_key) as api:
        changed = api.call("PATCH", f"{_path(api, project)}/{segment(account)}", body={"status": status.value})
    _print(changed, as_json=False)


def _path(api: Api, project: str | None) -> str:
    """The accounts of a project, which is the caller's own unless it is named."""
    return f"/v1/projects/{segment(project or api.get('/v1/auth/me')['owner'])}/service-accounts"


def _print(account: JsonObject, as_json: bool) -> None:
    if as_json:
        print_json(account)
        return
    print(f"{account['id']}  {account['name']}  {account['status']}")
