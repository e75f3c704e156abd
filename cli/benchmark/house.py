"""The owner, agents and session a run sends to, made on the product before the first measurement."""

import secrets
import time
from dataclasses import dataclass
from typing import Any, Final

from cli.api import Api
from cli.benchmark.children import Product
from cli.failures import Failure

LABEL: Final = "bench"
LONGEST_HEARTBEAT_AGE_S: Final = 3600
POLL_MESSAGES: Final = 50
SETTLED_WITHIN_S: Final = 60.0
TOLD_WITHIN_S: Final = 600.0
SETTLE_POLL_S: Final = 0.02
LONGEST_EVENT_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """Agents by id, one for each kind of measurement, so that no list grows by another one's messages."""

    url: str
    key: str
    inbox: str
    live: str
    webhook: str
    hung: str
    poll: str
    lag: str
    few: str
    many: str
    sentinel: str
    session_token: str


def furnish(product: Product, receiver_url: str, neighbour_url: str) -> House:
    """Make a fresh owner with all that a run needs; the receiver at `neighbour_url` hangs when it is told to."""
    owner = f"bench-{secrets.token_hex(4)}"
    admin = Api(product.url, product.admin_key)
    try:
        key = admin.post("/v1/keys", {"owner": owner, "name": "bench"})["key"]
    finally:
        admin.close()
    api = Api(product.url, key)
    try:
        return _agents(api, product.url, key, receiver_url, neighbour_url)
    finally:
        api.close()


def _agents(api: Api, url: str, key: str, receiver_url: str, neighbour_url: str) -> House:
    live = _agent(
        api, "live", ["live"], attestation="token+nonce", heartbeat_age_sec=LONGEST_HEARTBEAT_AGE_S, claim_window_s=600
    )
    session = api.post(f"/v1/agents/{live}/live-sessions", {"label": LABEL, "attestation": "token+nonce"})
    api.post(f"/v1/agents/{live}/live-sessions/{LABEL}/heartbeat", {})
    return House(
        url=url,
        key=key,
        inbox=_agent(api, "inbox", ["inbox"]),
        live=live,
        webhook=_agent(api, "webhook", ["webhook"], webhook_url=receiver_url),
        hung=_agent(api, "hung", ["webhook"], webhook_url=neighbour_url),
        poll=_agent(api, "poll", ["inbox"]),
        lag=_agent(api, "lag", ["inbox"]),
        few=_agent(api, "few", ["inbox"]),
        many=_agent(api, "many", ["inbox"]),
        sentinel=_agent(api, "sentinel", ["inbox"]),
        session_token=session["session_token"],
    )


def _agent(api: Api, name: str, capabilities: list[str], **more: Any) -> str:
    view = api.post("/v1/agents", {"slug": f"bench-{name}", "delivery_capabilities": capabilities, **more})
    return str(view["id"])


def fill_inbox(house: House) -> None:
    """Put as many messages as one poll asks for where the polls look, and hand them out once.

    The first hand-out of a message is a durable append; what is measured is the poll.
    """
    api = Api(house.url, house.key)
    try:
        for number in range(POLL_MESSAGES):
            api.post("/v1/messages", {"to": house.poll, "message": f"message {number}"})
        _until(lambda: _count(api, house.poll) >= POLL_MESSAGES)
        api.get(f"/v1/agents/{house.poll}/inbox", limit=POLL_MESSAGES)
    finally:
        api.close()


def settle(house: House) -> float:
    """Wait until everything accepted so far is in the lists; return the seconds it took.

    The lists follow the ledger in its order: when a message sent now is there, all earlier ones are.
    """
    api = Api(house.url, house.key)
    try:
        before, began_s = _count(api, house.sentinel), time.perf_counter()
        api.post("/v1/messages", {"to": house.sentinel, "message": "the last one"})
        _until(lambda: _count(api, house.sentinel) > before)
        return time.perf_counter() - began_s
    finally:
        api.close()


def settle_events(house: House) -> float:
    """Wait until everything done so far is in the event log; return the seconds it took."""
    api = Api(house.url, house.key)
    try:
        began_s = time.perf_counter()
        last = api.post("/v1/messages", {"to": house.sentinel, "message": "the last one"})["id"]
        since = 0

        def is_told() -> bool:
            nonlocal since
            page = api.get(f"/v1/agents/{house.sentinel}/events", since=since, limit=LONGEST_EVENT_PAGE)
            since = page["next_cursor"] or since
            return any(event["subject"] == last for event in page["events"])

        _until(is_told, "the event log", TOLD_WITHIN_S)
        return time.perf_counter() - began_s
    finally:
        api.close()


def _count(api: Api, agent: str) -> int:
    return int(api.get(f"/v1/agents/{agent}/inbox", count_only="true")["count"])


def _until(holds: Any, where: str = "the lists", within_s: float = SETTLED_WITHIN_S) -> None:
    deadline_s = time.perf_counter() + within_s
    while not holds():
        if time.perf_counter() > deadline_s:
            raise Failure(f"what was accepted is not in {where} after {within_s:g} s")
        time.sleep(SETTLE_POLL_S)
