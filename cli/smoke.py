"""`postroom smoke`: one message through everything of a running server."""

import secrets
import time
from collections.abc import Callable
from typing import Final

from cli.api import Api, ApiKey, JsonObject, Url, connect, segment
from cli.explain import full_view
from cli.failures import Failure, Refused
from cli.output import AsJson, print_line

SLUG: Final = "postroom-smoke"
WAIT_S: Final = 10


def smoke(as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Send one message to an inbox agent of its own, receive it, acknowledge it, and check what is told of it.

    Example: postroom smoke && echo deliver
    """
    mark = secrets.token_hex(8)
    with connect(url, api_key) as api:
        steps = Steps(as_json)
        steps.take("agent", lambda: _agent(api))
        decision = steps.take("route", lambda: api.post("/v1/route", {"to": SLUG, "message": mark}))
        sent = steps.take("send", lambda: api.post("/v1/messages", {"to": SLUG, "message": mark}))
        steps.take("receive", lambda: _receive(api, sent["id"], mark))
        steps.take("acknowledge", lambda: api.post(f"/v1/messages/{sent['id']}/ack"))
        steps.take("explain", lambda: _explained(full_view(api, sent["id"]), decision))


class Steps:
    """Takes one step after the other and prints each with the time it took; the first that fails ends the command."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def take(self, name: str, step: Callable[[], JsonObject]) -> JsonObject:
        started = time.monotonic()
        try:
            answer: JsonObject = step()
        except Failure as failure:
            self._say(name, False, time.monotonic() - started)
            failure.args = (f"{name}: {failure.message}",)
            failure.message = failure.args[0]
            raise
        self._say(name, True, time.monotonic() - started)
        return answer

    def _say(self, name: str, ok: bool, elapsed_s: float) -> None:
        if self._as_json:
            print_line({"step": name, "ok": ok, "elapsed_s": round(elapsed_s, 4)})
        else:
            print(f"{'✓' if ok else '✗'} {name}  {elapsed_s * 1000:.0f} ms", flush=True)


def _agent(api: Api) -> JsonObject:
    try:
        return api.get(f"/v1/agents/{SLUG}")
    except Refused as refused:
        if refused.status != 404:
            raise
        return api.post("/v1/agents", {"slug": SLUG, "delivery_capabilities": ["inbox"]})


def _receive(api: Api, message_id: str, mark: str) -> JsonObject:
    """The message as its receiver gets it. Messages an earlier run left behind are put away."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for message in api.get(f"/v1/agents/{segment(SLUG)}/inbox", limit=200, wait_s=1)["messages"]:
            if message["id"] == message_id:
                _expect(message["message"] == mark, "the message arrived with another content")
                return dict(message)
            api.post(f"/v1/messages/{message['id']}/ack")
    raise Failure(f"the message was not in the inbox within {WAIT_S} s")


def _explained(view: JsonObject, decision: JsonObject) -> JsonObject:
    _expect(view["state"] == "delivered", f"its state is {view['state']}")
    _expect(view["delivery_route"] == "inbox", f"its route is {view['delivery_route']}")
    gates = [(each["gate"], each["verdict"]) for each in view["trace"]]
    _expect(gates == [(each["gate"], each["verdict"]) for each in decision["trace"]], "the dry run said otherwise")
    _expect(view["events"][0]["type"] == "accepted", "its history does not begin with its acceptance")
    return view


def _expect(true: bool, complaint: str) -> None:
    if not true:
        raise Failure(complaint)
