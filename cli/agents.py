"""`postroom agents`: the addresses messages can be sent to, and how each may be reached."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from cli.api import ApiKey, JsonObject, Url, connect, segment
from cli.failures import Failure, Misused
from cli.inbox import AgentRef
from cli.output import AsJson, print_json, print_table

app = typer.Typer(help="Agents: create, list, show, try, update, delete.", no_args_is_help=True)


class Channel(StrEnum):
    LIVE = "live"
    BG = "bg"
    INBOX = "inbox"
    WEBHOOK = "webhook"


class Attestation(StrEnum):
    TOKEN = "token"  # noqa: S105 - a level's name
    TOKEN_NONCE = "token+nonce"  # noqa: S105 - a level's name


class Status(StrEnum):
    ACTIVE = "active"
    INACTIVE = "inactive"


class WorkStyle(StrEnum):
    SYNC = "sync"
    ASYNC = "async"


Can = Annotated[list[Channel] | None, typer.Option("--can", help="A channel it can receive on; may be repeated.")]
Preferred = Annotated[Channel | None, typer.Option("--preferred", help="The channel `auto` tries first.")]
HeartbeatAge = Annotated[
    int | None, typer.Option("--heartbeat-age-s", min=10, max=3600, help="When a heartbeat is stale (default 120).")
]
Window = Annotated[
    int | None, typer.Option("--window-s", min=1, max=600, help="How long a live session may take to claim (30).")
]
Level = Annotated[Attestation | None, typer.Option("--attestation", help="What a live claim has to prove.")]
Hook = Annotated[str | None, typer.Option("--webhook-url", help="Where messages are POSTed.")]
StatusOption = Annotated[Status | None, typer.Option("--status", help="An inactive agent is sent nothing.")]
Metadata = Annotated[str | None, typer.Option("--metadata", metavar="JSON", help="A JSON object.")]
Name = Annotated[str | None, typer.Option("--display-name", help="For people.")]
Special = Annotated[str | None, typer.Option("--specialization", help="For people and senders.")]
Tool = Annotated[list[str] | None, typer.Option("--tool", help="May be repeated.")]
KindOption = Annotated[str | None, typer.Option("--kind", help="What it is selected by, e.g. llm.")]
Capability = Annotated[
    list[str] | None,
    typer.Option("--capability", metavar="KEY=VALUE", help="What it is selected by; JSON or text; may be repeated."),
]
Description = Annotated[str | None, typer.Option("--description", help="What it is for.")]
Config = Annotated[str | None, typer.Option("--config", metavar="JSON", help="A JSON object; kept and shown.")]
Style = Annotated[WorkStyle | None, typer.Option("--work-style", help="How it works; no routing decision.")]


@app.command()
def create(
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="1 to 63 of a-z, 0-9 and -")],
    can: Can = None,
    preferred: Preferred = None,
    heartbeat_age_s: HeartbeatAge = None,
    window_s: Window = None,
    attestation: Level = None,
    webhook_url: Hook = None,
    status: StatusOption = None,
    metadata: Metadata = None,
    display_name: Name = None,
    specialization: Special = None,
    tool: Tool = None,
    work_style: Style = None,
    kind: KindOption = None,
    capability: Capability = None,
    description: Description = None,
    config: Config = None,
    service_account: Annotated[
        str | None, typer.Option("--service-account", metavar="ID", help="The account behind it, for life.")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Another owner than yours; needs an admin key.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Create an agent. Without --can it has an inbox and nothing else.

    Example: postroom agents create cue-mac-app --can live --can bg --can inbox --preferred live
    """
    profile = _profile(display_name, specialization, tool, work_style)
    fields = _fields(can, preferred, heartbeat_age_s, window_s, attestation, webhook_url, status, metadata, profile)
    named = {"slug": slug, "owner": owner, "service_account_id": service_account}
    nature = _nature(kind, capability, description, config)
    body = {**{field: value for field, value in named.items() if value is not None}, **fields, **nature}
    with connect(url, api_key) as api:
        _print(api.post("/v1/agents", body), as_json)


@app.command(name="list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=200)] = 200,
    cursor: Annotated[str | None, typer.Option(help="Where the last page ended.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """List agents.

    Example: postroom agents list
    """
    with connect(url, api_key) as api:
        answer = api.get("/v1/agents", limit=limit, cursor=cursor)
    if as_json:
        print_json(answer)
        return
    rows = [(each["address"], each["id"], ",".join(each["delivery_capabilities"]), each["preferred_contact"],
             len(each["live_sessions"]), each["presence"], each["status"]) for each in answer["agents"]]  # fmt: skip
    print_table(("address", "id", "can", "preferred", "live sessions", "presence", "status"), rows)
    if answer.get("next_cursor"):
        typer.echo(f"more: --cursor {answer['next_cursor']}", err=True)


@app.command()
def show(agent: AgentRef, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Show one agent and its live sessions.

    Example: postroom agents show cue-mac-app@max
    """
    with connect(url, api_key) as api:
        _print(api.get(f"/v1/agents/{segment(agent)}"), as_json)


@app.command()
def echo(
    agent: AgentRef,
    timeout_s: Annotated[float, typer.Option(min=0.1, max=30, help="How long to wait for the answer.")] = 5,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Try whether pushes reach an agent's live sessions; the exit code says it too.

    Example: postroom agents echo cue-mac-app@max
    """
    with connect(url, api_key) as api:
        found = api.post(f"/v1/agents/{segment(agent)}/echo", {"timeout_s": timeout_s}, wait_s=timeout_s)
    if as_json:
        print_json(found)
    elif found["reached"]:
        print(f"reached within {found['round_trip_ms']:.0f} ms")
    if not found["reached"]:
        sessions = f"attached sessions that answer echoes: {found['echoing']}"
        raise Failure(f"not reached within {found['timeout_s']:g} s; {sessions}")


@app.command()
def update(
    agent: AgentRef,
    slug: Annotated[str | None, typer.Option(help="A new slug; the id stays.")] = None,
    can: Can = None,
    preferred: Preferred = None,
    heartbeat_age_s: HeartbeatAge = None,
    window_s: Window = None,
    attestation: Level = None,
    webhook_url: Hook = None,
    status: StatusOption = None,
    metadata: Metadata = None,
    display_name: Name = None,
    specialization: Special = None,
    tool: Tool = None,
    work_style: Style = None,
    kind: KindOption = None,
    capability: Capability = None,
    description: Description = None,
    config: Config = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Change what is named and nothing else. --can and --capability name the whole new set.

    Example: postroom agents update cue-mac-app --preferred bg
    """
    profile = _profile(display_name, specialization, tool, work_style)
    fields = _fields(can, preferred, heartbeat_age_s, window_s, attestation, webhook_url, status, metadata, profile)
    body = fields | _nature(kind, capability, description, config) | ({"slug": slug} if slug else {})
    if not body:
        raise Misused("nothing to change was named")
    with connect(url, api_key) as api:
        _print(api.call("PATCH", f"/v1/agents/{segment(agent)}", body=body), as_json)


@app.command()
def delete(agent: AgentRef, url: Url = None, api_key: ApiKey = None) -> None:
    """Delete an agent: it can be sent nothing any more.

    Example: postroom agents delete cue-notes
    """
    with connect(url, api_key) as api:
        api.call("DELETE", f"/v1/agents/{segment(agent)}")


def _fields(
    can: list[Channel] | None,
    preferred: Channel | None,
    heartbeat_age_s: int | None,
    window_s: int | None,
    attestation: Attestation | None,
    webhook_url: str | None,
    status: Status | None,
    metadata: str | None,
    profile: JsonObject,
) -> JsonObject:
    """The agent's fields that were named, as the gateway reads them."""
    named: dict[str, Any] = {
        "delivery_capabilities": [each.value for each in can] if can else None,
        "preferred_contact": preferred and preferred.value,
        "heartbeat_age_sec": heartbeat_age_s,
        "claim_window_s": window_s,
        "attestation": attestation and attestation.value,
        "webhook_url": webhook_url,
        "status": status and status.value,
        "metadata": _object(metadata, "--metadata") if metadata else None,
        "profile": profile or None,
    }
    return {field: value for field, value in named.items() if value is not None}


def _profile(name: str | None, special: str | None, tools: list[str] | None, style: WorkStyle | None) -> JsonObject:
    named = {
        "display_name": name,
        "specialization": special,
        "tools": tools,
        "work_style": style and style.value,
    }
    return {field: value for field, value in named.items() if value is not None}


def _nature(
    kind: str | None, capabilities: list[str] | None, description: str | None, config: str | None
) -> JsonObject:
    """What the agent is, as far as that was said."""
    named = {
        "kind": kind,
        "capabilities": dict(map(_capability, capabilities)) if capabilities else None,
        "description": description,
        "config": _object(config, "--config") if config else None,
    }
    return {field: value for field, value in named.items() if value is not None}


def _capability(text: str) -> tuple[str, Any]:
    key, is_pair, value = text.partition("=")
    if not key or not is_pair:
        raise Misused("--capability takes KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _object(text: str, option: str) -> JsonObject:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Misused(f"{option} takes a JSON object")
    return value


def _print(agent: JsonObject, as_json: bool) -> None:
    if as_json:
        print_json(agent)
        return
    print(f"{agent['address']}  {agent['id']}  {agent['status']}, {agent['presence']}")
    if agent.get("kind") or agent.get("capabilities"):
        print(f"kind {agent['kind'] or 'unknown'}; capabilities {json.dumps(agent['capabilities'])}")
    print(f"can {', '.join(agent['delivery_capabilities'])}; prefers {agent['preferred_contact'] or 'nothing'}")
    print(f"heartbeat stale after {agent['heartbeat_age_sec']} s; claim window {agent['claim_window_s']} s")
    if agent.get("webhook_url"):
        print(f"webhook {agent['webhook_url']}")
    if agent.get("webhook_secret"):
        print(f"webhook secret (not shown again): {agent['webhook_secret']}")
    for session in agent.get("live_sessions") or []:
        age = session.get("heartbeat_age_sec")
        print(f"live session {session['label']}: heartbeat {'unknown' if age is None else f'{age:.0f} s ago'}")
