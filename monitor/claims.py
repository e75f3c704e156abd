"""Claiming an offer for a session: the one call that decides whether the message is its own."""

from dataclasses import dataclass

import anyio

from contracts.errors import Rejected
from contracts.records import JsonObject
from monitor.backoff import Backoff, persist
from monitor.ports import Gateway

CLAIM_BACKOFF = Backoff(first_s=0.1, cap_s=2.0)
"""A claim window lasts half a minute: better to ask often than politely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The claim is won; `answer` is the gateway's, with the message in it."""

    answer: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The claim is lost or was never valid; `code` is stable, `message` is for people."""

    code: str
    message: str

    def document(self, execution_id: str) -> JsonObject:
        return {"execution_id": execution_id, "code": self.code, "message": self.message}


class Claims:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def claim(
        self, execution_id: str, session_token: str, nonce: str | None, *, patience_s: float
    ) -> Granted | Refused:
        """Ask until the gateway answers, at most `patience_s` seconds: by then the window has closed."""
        try:
            with anyio.move_on_after(patience_s):
                return Granted(
                    answer=await persist(
                        lambda: self._gateway.live_claim(execution_id, session_token, nonce),
                        what="live_claim",
                        backoff=CLAIM_BACKOFF,
                    )
                )
        except Rejected as refusal:
            return Refused(code=refusal.code, message=refusal.message)
        return Refused(code="gateway_unavailable", message="The gateway did not answer within the claim window.")
