"""`postroom inbox` and `postroom listen`: an agent's mailbox, once or for as long as one likes."""

import json
from collections.abc import Iterator
from typing import Annotated, Final

import typer

from cli.api import Api, ApiKey, JsonObject, Url, connect, segment
from cli.failures import Misused
from cli.output import AsJson, one_line, print_json, print_line
from cli.server_events import follow

AgentRef = Annotated[str, typer.Argument(metavar="AGENT", help="agent_…, slug@owner, or a slug of your own.")]
Secret = Annotated[
    str | None,
    typer.Option(envvar="POSTROOM_WEBHOOK_SECRET", help="With --forward-to: checks signatures.", show_default=False),
]
EdgeUrl = Annotated[
    str | None,
    typer.Option(
        envvar="POSTROOM_NATS_EDGE_URL",
        help="With --forward-to: the broker's address, where the gateway does not tell it.",
        show_default=False,
    ),
]
Ack = Annotated[bool, typer.Option("--ack", help="Acknowledge each message that was printed.")]

LISTEN_WAIT_S: Final = 30
UNACKNOWLEDGED: Final = "queued,delivered,read"


def inbox(
    agent: AgentRef,
    wait_s: Annotated[int, typer.Option(min=0, max=60, help="How long to wait for an empty inbox to fill.")] = 0,
    state: Annotated[
        str | None, typer.Option(help="A comma list of queued, delivered, read, acked. Default: all but acked.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    ack: Ack = False,
    count: Annotated[bool, typer.Option("--count", help="Print only how many there are.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Print what lies in an agent's inbox, oldest first.

    Example: postroom inbox cue-notes --wait-s 30 --ack
    """
    with connect(url, api_key) as api:
        path = f"/v1/agents/{segment(agent)}/inbox"
        if count:
            answer = api.get(path, state=state, count_only="true")
            print_json(answer) if as_json else print(answer["count"])
            return
        answer = api.get(path, state=state, limit=limit, wait_s=wait_s)
        messages = [_acknowledged(api, each) if ack else each for each in answer["messages"]]
    if as_json:
        print_json(answer | {"messages": messages})
    else:
        for each in messages:
            print(_line(each))


def listen(
    agent: Annotated[str, typer.Argument(metavar="[AGENT]", help="agent_…, slug@owner, or a slug of your own.")] = "",
    named: Annotated[str, typer.Option("--agent", help="The same, as an option.")] = "",
    ack: Ack = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Have them pushed over one connection, instead of asking again.")
    ] = False,
    forward_to: Annotated[
        str, typer.Option(metavar="URL", help="Copy the agent's webhooks to a program here, as they are posted.")
    ] = "",
    replay: Annotated[
        str, typer.Option(metavar="MESSAGE", help="With --forward-to: copy the webhook of this message, and end.")
    ] = "",
    secret: Secret = None,
    nats_url: EdgeUrl = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Print each message of an agent's inbox as it comes, until Ctrl-C; first those not acknowledged yet.

    With --stream first those neither read nor acknowledged; a lost connection is made again, and each message printed
    once.

    Examples:

    postroom listen cue-notes --ack --json | jq .message

    postroom listen cue-notes --stream --json

    postroom listen --agent cue-hook --forward-to http://localhost:3000/hook
    """
    agent = agent or named
    if not agent:
        raise Misused("name an agent")
    if forward_to:
        from cli.webhook_forward import Forwarding, destination, forward_webhooks

        wanted = Forwarding(agent=agent, to=destination(forward_to), secret=secret, as_json=as_json)
        with connect(url, api_key) as api:
            forward_webhooks(api, wanted, nats_url=nats_url, replayed=replay)
        return
    if replay:
        raise Misused("--replay goes with --forward-to")
    with connect(url, api_key) as api:
        for each in _streamed(api, agent) if stream else _arrivals(api, agent):
            print_line(each) if as_json else print(_line(each), flush=True)
            # After printing: a message that nobody saw is never acknowledged.
            if ack:
                _acknowledged(api, each)


def _arrivals(api: Api, agent: str) -> Iterator[JsonObject]:
    path = f"/v1/agents/{segment(agent)}/inbox"
    cursor: str | None = None
    while True:
        page = api.get(path, state=UNACKNOWLEDGED, limit=200, cursor=cursor)
        yield from page["messages"]
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    while True:
        yield from api.get(path, state="queued", limit=200, wait_s=LISTEN_WAIT_S)["messages"]


def _streamed(api: Api, agent: str) -> Iterator[JsonObject]:
    for event in follow(api, f"/v1/agents/{segment(agent)}/inbox/stream"):
        content = json.loads(event.data)
        # An agent may want to be woken for several messages together.
        yield from content["messages"] if event.kind == "batch" else [content]


def _acknowledged(api: Api, message: JsonObject) -> JsonObject:
    return message if message["terminal"] else api.post(f"/v1/messages/{segment(message['id'])}/ack")


def _line(message: JsonObject) -> str:
    subject = f"[{one_line(message['subject'])}] " if message.get("subject") else ""
    sender = message["from"]["owner"]
    return f"{message['id']}  {message['accepted_at']}  {sender}  {subject}{one_line(message['message'], 200)}"
