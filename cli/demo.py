"""The demo: one question sent seven times to agents in seven situations, and each time the way it took is checked.

    live                    a session is there                          claimed, attested, answered in the session
    stale heartbeat         a session is there and says nothing         background_fallback, a fresh subprocess
    no session              nobody is attached                          bg, a fresh subprocess
    unclaimed               a session is offered it and does not claim  the window closes, background_fallback
    unclaimed, no fallback  the same, and the sender wants live only    live_unclaimed_no_fallback
    inbox                   the agent only polls                        inbox, acknowledged
    webhook                 the agent is an HTTP endpoint               a signed POST, verified

Everything is done through the public HTTP interface and the monitor's session folder, as any client does it.
"""

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import anyio

from cli.api import JsonObject
from cli.async_api import AsyncApi
from cli.demo_cast import APP, HOOK, NOTES, NOTES_FIELDS, OWNER, ensure_agent, recreate_agent
from cli.demo_receiver import Received, receiving
from cli.failures import Failure
from cli.report import Facts, Report
from monitor.session import Delivery, SessionFolder

QUESTION: Final[JsonObject] = {
    "to": f"{APP}@{OWNER}",
    "delivery_mode": "live",
    "live_fallback_mode": "background",
    "subject": "Quick question",
    "message": "Can you check the staging promotion workflow?",
}
WAIT_S: Final = 20
STALE_BY_S: Final = 300
POLL_S: Final = 0.05


class Demo:
    """The steps in order; the first that does not hold ends it by name."""

    def __init__(self, api: AsyncApi, state_dir: Path, report: Report, *, claim_window_s: int) -> None:
        self._api = api
        self._state_dir = state_dir
        self._report = report
        self._claim_window_s = claim_window_s
        self._session = self._new_session()

    async def run(self) -> None:
        steps: tuple[tuple[str, str, Callable[[], Awaitable[JsonObject]]], ...] = (
            ("live", "live: the session claims, proves itself and answers", self.live),
            ("stale_heartbeat", "stale heartbeat: falls back to a fresh subprocess", self.stale_heartbeat),
            ("no_session", "no session attached: a fresh subprocess at once", self.no_session),
            ("unclaimed", "nobody claims: the window closes, a fresh subprocess", self.unclaimed),
            ("unclaimed_no_fallback", "nobody claims and no fallback wanted", self.unclaimed_no_fallback),
            ("inbox", "auto to an agent that only polls: its inbox", self.inbox),
            ("webhook", "an agent behind a webhook: a signed POST", self.webhook),
        )
        try:
            for name, title, step in steps:
                await self._take(name, title, step)
        finally:
            with anyio.CancelScope(shield=True):
                await self._session.close(drain_s=0)

    async def _take(self, name: str, title: str, step: Callable[[], Awaitable[JsonObject]]) -> None:
        with self._report.step(f"demo.{name}") as facts:
            facts["title"] = title
            view = await self._explained(await step())
            facts.update(_facts(view))
        self._report.explain(view)

    # --- the steps -------------------------------------------------------------------------------------------------

    async def live(self) -> JsonObject:
        await self._attach()
        sent = await self._ask()
        expect(sent, "effective_delivery_mode", "live")
        expect(sent, "state", "offered")
        await self._answer_in_session(sent["execution_id"])
        view = await self._explained(sent)
        expect(view, "delivery_route", "live")
        expect(view["claim"] or {}, "level", "token+nonce")
        expect(view["outcome"] or {}, "executed_via", "live")
        return view

    async def stale_heartbeat(self) -> JsonObject:
        long_ago = time.time() - STALE_BY_S
        os.utime(self._session.path / "heartbeat", (long_ago, long_ago))
        await self._until("the server knows that the heartbeat is stale", self._is_stale)
        view = await self._ask(wait="outcome", timeout_s=WAIT_S)
        expect(view, "effective_delivery_mode", "background_fallback")
        return _ran_in_background(view, "background_fallback")

    async def no_session(self) -> JsonObject:
        await self._session.close()
        await self._until("the session is detached", self._is_detached)
        view = await self._ask(wait="outcome", timeout_s=WAIT_S)
        expect(view, "effective_delivery_mode", "bg")
        return _ran_in_background(view, "background_direct")

    async def unclaimed(self) -> JsonObject:
        await self._attach()
        sent = await self._ask(claim_window_s=self._claim_window_s)
        expect(sent, "effective_delivery_mode", "live")
        view = await self._ended(sent)
        expect(view, "effective_delivery_mode", "background_fallback")
        return _ran_in_background(view, "background_fallback")

    async def unclaimed_no_fallback(self) -> JsonObject:
        sent = await self._ask(claim_window_s=self._claim_window_s, live_fallback_mode="none")
        expect(sent, "state", "offered")
        view = await self._ended(sent)
        expect(view, "state", "live_unclaimed_no_fallback")
        return view

    async def inbox(self) -> JsonObject:
        await ensure_agent(self._api, NOTES, NOTES_FIELDS)
        sent = await self._ask(to=NOTES, delivery_mode="auto")
        expect(sent, "effective_delivery_mode", "inbox")
        await self._until("the message is in the inbox", lambda: self._is_in_inbox(sent["id"]))
        await self._api.post(f"/v1/messages/{sent['id']}/ack")
        view = await self._explained(sent)
        expect(view, "state", "delivered")
        expect(view, "delivery_route", "inbox")
        return view

    async def webhook(self) -> JsonObject:
        async with receiving() as receiver:
            hook = {"delivery_capabilities": ["webhook"], "webhook_url": receiver.url}
            agent = await recreate_agent(self._api, HOOK, hook)
            sent = await self._ask(to=HOOK, delivery_mode="webhook", live_fallback_mode=None)
            expect(sent, "effective_delivery_mode", "webhook")
            _verify(await receiver.next(WAIT_S), agent["webhook_secret"], sent["id"])
            view = await self._ended(sent)
        expect(view, "state", "delivered")
        expect(view, "delivery_route", "webhook")
        return view

    # --- what they are made of -------------------------------------------------------------------------------------

    def _new_session(self) -> SessionFolder:
        return SessionFolder(self._state_dir, APP, "main")

    async def _attach(self) -> None:
        self._session = self._new_session()
        self._session.open()
        await self._session.wait_attached(WAIT_S)

    async def _ask(self, *, wait: str | None = None, timeout_s: int | None = None, **changes: object) -> JsonObject:
        body = {name: value for name, value in (QUESTION | changes).items() if value is not None}
        query = {"wait": wait, "timeout_s": timeout_s} if wait else {}
        return await self._api.post("/v1/messages", body, **query)

    async def _answer_in_session(self, execution_id: str) -> None:
        with anyio.fail_after(WAIT_S):
            async for offer in self._session.offers():
                if offer.execution_id == execution_id:
                    self._session.claim(offer)
                    break
        answer = await self._session.wait_answer(execution_id, WAIT_S)
        if not isinstance(answer, Delivery):
            raise Failure(f"the claim was refused: {answer.code}")
        self._session.outcome(execution_id, success=True, result={"answer": "The workflow is green."})
        refusal = await self._session.wait_posted(execution_id, WAIT_S)
        if refusal is not None:
            raise Failure(f"the outcome was refused: {refusal.code}")

    async def _ended(self, sent: JsonObject) -> JsonObject:
        async def is_terminal() -> bool:
            return bool((await self._explained(sent))["terminal"])

        await self._until("the message has ended", is_terminal)
        return await self._explained(sent)

    async def _explained(self, view: JsonObject) -> JsonObject:
        return await self._api.get(f"/v1/executions/{view['execution_id']}")

    async def _sessions(self) -> list[JsonObject]:
        return list((await self._api.get(f"/v1/agents/{APP}/live-sessions"))["live_sessions"])

    async def _is_stale(self) -> bool:
        ages = [each["heartbeat_age_sec"] for each in await self._sessions()]
        return bool(ages) and all(age is not None and age >= STALE_BY_S - 1 for age in ages)

    async def _is_detached(self) -> bool:
        return not await self._sessions()

    async def _is_in_inbox(self, message_id: str) -> bool:
        waiting = await self._api.get(f"/v1/agents/{NOTES}/inbox", wait_s=1, limit=200)
        return message_id in {each["id"] for each in waiting["messages"]}

    async def _until(self, what: str, true: Callable[[], Awaitable[bool]]) -> None:
        with anyio.move_on_after(WAIT_S):
            while not await true():
                await anyio.sleep(POLL_S)
            return
        raise Failure(f"not within {WAIT_S} s: {what}")


def expect(view: JsonObject, field: str, wanted: object) -> None:
    """Raise `Failure` when a view says something else than the step promises."""
    if view.get(field) != wanted:
        raise Failure(
            f"{field} is {view.get(field)!r} where {wanted!r} was expected (execution {view.get('execution_id')})"
        )


def _ran_in_background(view: JsonObject, route: str) -> JsonObject:
    expect(view, "state", "delivered")
    expect(view, "delivery_route", route)
    result = (view["outcome"] or {}).get("result") or {}
    expect(result, "execution_id", view["execution_id"])
    if not isinstance(result.get("pid"), int) or result["pid"] == os.getpid():
        raise Failure("no subprocess of its own ran")
    return view


def _verify(received: Received, secret: str, message_id: str) -> None:
    from standardwebhooks import Webhook, WebhookVerificationError

    try:
        Webhook(secret).verify(received.body, received.headers)
    except WebhookVerificationError as error:
        raise Failure(f"the signature does not verify: {error}") from None
    if message_id.encode() not in received.body:
        raise Failure("the POST is about another message")


def _facts(view: JsonObject) -> Facts:
    told = ("id", "execution_id", "effective_delivery_mode", "delivery_route", "state", "reason", "trace")
    return {name: view[name] for name in told}
