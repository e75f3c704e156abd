"""`postroom send`: one message, and on request the wait for what becomes of it."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from cli.api import ApiKey, JsonObject, Url, connect
from cli.failures import Failure, Misused, Refused
from cli.output import AsJson, console, one_line, print_json
from cli.selector import PickOption, ProjectOption, WhereOption, addressee
from cli.wish import FallbackOption, Mode, ModeOption, To, TtlOption, WindowOption, wish_fields


class Stage(StrEnum):
    CLAIMED = "claimed"
    OUTCOME = "outcome"


def send(
    to: To = None,
    message: Annotated[
        str | None, typer.Argument(metavar="MESSAGE", help="The text; - reads standard input.", show_default=False)
    ] = None,
    subject: Annotated[str | None, typer.Option(help="At most 255 characters.")] = None,
    mode: ModeOption = Mode.AUTO,
    fallback: FallbackOption = None,
    wait: Annotated[Stage | None, typer.Option(help="Hold the answer until it is claimed, or has an outcome.")] = None,
    timeout_s: Annotated[int, typer.Option(min=1, max=120, help="How long --wait waits.")] = 30,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Sending again with the same key sends nothing twice.")
    ] = None,
    from_agent: Annotated[str | None, typer.Option(help="One of your own agents, as the sender.")] = None,
    window_s: WindowOption = None,
    ttl_s: TtlOption = None,
    where: WhereOption = None,
    pick: PickOption = None,
    project: ProjectOption = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="K=V", help="May be repeated.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Send a message and print where it went. With --wait the exit code tells what became of it.

    Example: postroom send cue-mac-app "Can you check the staging promotion?" --mode live --wait outcome
    Example: postroom send "Who is free?" --where kind=llm --where capabilities.model=claude-3-5-haiku --pick all
    """
    if where and message is None:
        to, message = None, to
    if message is None:
        raise Misused("say the MESSAGE")
    named = addressee(to, where, pick, project)
    body: JsonObject = {"to": named, "message": _text(message), **wish_fields(mode, fallback, window_s, ttl_s)}
    body |= {"subject": subject} if subject is not None else {}
    body |= {"metadata": pairs(metadata)} if metadata else {}
    headers = {"Idempotency-Key": idempotency_key, "X-Postroom-From-Agent": from_agent}
    query = {"wait": wait.value, "timeout_s": timeout_s} if wait else {}
    with connect(url, api_key) as api:
        try:
            view = api.post(
                "/v1/messages",
                body,
                query=query,
                headers={name: value for name, value in headers.items() if value is not None},
                wait_s=timeout_s if wait else 0,
            )
        except Refused as refused:
            _print_gates(refused, as_json)
            raise
    if as_json:
        print_json(view)
    elif "messages" in view:
        _print_all(view)
    else:
        _print(view)
    if wait:
        _tell_truth(view, wait)


def pairs(texts: list[str]) -> JsonObject:
    """`k=v` texts as an object of strings."""
    split = [text.partition("=") for text in texts]
    if not all(name and equals for name, equals, _ in split):
        raise Misused("--metadata takes name=value")
    return {name: value for name, _, value in split}


def _text(message: str) -> str:
    return sys.stdin.read() if message == "-" else message


def _print(view: JsonObject) -> None:
    to = view["to"]
    went = view["effective_delivery_mode"] or "nowhere"
    print(f"{view['id']}  → {to['slug']}@{to['owner']}  {went}  {view['state']} ({view['reason']})")
    if outcome := view.get("outcome"):
        print(f"outcome: {'success' if outcome['success'] else 'failure'}, route {outcome['route']}")
        if outcome.get("result") is not None:
            print(f"result: {one_line(str(outcome['result']), 2_000)}")
        if outcome.get("error"):
            print(f"error: {one_line(outcome['error'], 2_000)}")
    if not view["terminal"]:
        print(f"follow it with: postroom explain {view['id']}")


def _print_all(view: JsonObject) -> None:
    """A line for each who got it, and for each who did not."""
    for sent in view["messages"]:
        _print(sent)
    for failure in view["failures"]:
        to, error = failure["to"], failure["error"]
        print(f"not sent  → {to['slug']}@{to['owner']}  {error['code']}: {error['message']}")


def _print_gates(refused: Refused, as_json: bool) -> None:
    """A refusal for want of a capability carries the gates' answers."""
    trace = refused.facts.get("trace")
    if as_json:
        print_json({"error": refused.facts})
    elif trace:
        from cli.explanation import trace_table

        console().print(trace_table(trace))


def _tell_truth(view: JsonObject, wait: Stage) -> None:
    outcome = view.get("outcome")
    if view["terminal"] and (view["state"] != "delivered" or (outcome is not None and not outcome["success"])):
        raise Failure(f"it ended {view['state']}: {view['reason']}")
    if not view["waited"]["reached"]:
        raise Failure(
            f"no {wait.value} within {view['waited']['waited_s']:.1f} s; the message is still {view['state']}"
        )
