"""`postroom webhook`: how an agent's webhook is signed, how its receiver does, and what came of each attempt."""

from typing import Annotated, Final

import typer

from cli.api import ApiKey, JsonObject, Url, connect, segment
from cli.failures import Failure
from cli.output import AsJson, one_line, print_json, print_table

app = typer.Typer(help="An agent's webhook: show, test, rotate its secret, enable it again.", no_args_is_help=True)

AgentRef = Annotated[str, typer.Argument(metavar="AGENT", help="agent_…, slug@owner, or a slug of your own.")]
COLUMNS: Final = ("number", "at", "status", "latency_ms", "error", "retry_at", "response")
SHOWN_CHARACTERS: Final = 60


@app.command()
def show(agent: AgentRef, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Show where an agent's webhooks go and how its receiver does.

    Example: postroom webhook show cue-hook
    """
    with connect(url, api_key) as api:
        _print(api.get(f"/v1/agents/{segment(agent)}/webhook"), as_json)


@app.command(name="test")
def ping(agent: AgentRef, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Post a signed test now, and tell what the receiver said.

    Exit code 1 when it did not take it.

    Example: postroom webhook test cue-hook
    """
    with connect(url, api_key) as api:
        said = api.post(f"/v1/agents/{segment(agent)}/webhook/test")
    _print(said, as_json)
    if not said["delivered"]:
        raise Failure("the receiver did not take it")


@app.command()
def rotate(
    agent: AgentRef,
    overlap_s: Annotated[
        int, typer.Option(min=0, max=604_800, help="How long the present secret goes on signing as well.")
    ] = 86_400,
    signature: Annotated[str | None, typer.Option(help="v1 (shared secret) or v1a (Ed25519).")] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Give the webhook another secret; it is printed once.

    Example: postroom webhook rotate cue-hook --overlap-s 3600
    """
    body = {"overlap_s": overlap_s} | ({"signature": signature} if signature else {})
    with connect(url, api_key) as api:
        rotated = api.post(f"/v1/agents/{segment(agent)}/webhook/rotate", body)
    if as_json:
        print_json(rotated)
        return
    typer.echo("It is not shown again:" if rotated["webhook_secret"] else "Receivers verify with this key:", err=True)
    print(rotated["webhook_secret"] or rotated["public_key"])


@app.command()
def enable(agent: AgentRef, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Post to a receiver again that was gone, or failed for days.

    Example: postroom webhook enable cue-hook
    """
    with connect(url, api_key) as api:
        _print(api.post(f"/v1/agents/{segment(agent)}/webhook/enable"), as_json)


@app.command()
def attempts(
    execution: Annotated[str, typer.Argument(metavar="ID", help="An execution's id, or a message's.")],
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """List every attempt at an execution.

    Example: postroom webhook attempts msg_01k5z3w8p2c4d6f8h0j2m4n6q8
    """
    with connect(url, api_key) as api:
        answer = api.get(f"/v1/executions/{segment(execution)}/attempts")
    if as_json:
        print_json(answer)
        return
    shown = ({**each, "response": one_line(each["response"], SHOWN_CHARACTERS)} for each in answer["attempts"])
    print_table(COLUMNS, ([each[column] for column in COLUMNS] for each in shown))


def _print(view: JsonObject, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    for name, value in view.items():
        print(f"{name:22} {'-' if value is None else one_line(str(value), 200)}")
