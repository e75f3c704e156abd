"""Holding an answer until a message has got somewhere: `wait=claimed` and `wait=outcome`."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

import structlog
from starlette.types import Receive

from contracts.clock import Clock
from contracts.errors import Invalid, Unavailable
from contracts.records import JsonObject, Principal
from contracts.words import State
from gateway.holds import Check, Holds
from gateway.ports import Watch
from router.execution import Execution
from router.service import Service, Standing

STAGES: Final = ("claimed", "outcome")
MIN_TIMEOUT_S, MAX_TIMEOUT_S, DEFAULT_TIMEOUT_S = 1, 120, 30
log = structlog.get_logger()
_UNTAKEN: Final = frozenset({State.WAITING, State.OFFERED, State.QUEUED, State.IN_INBOX})


@dataclass(frozen=True, slots=True)
class Hold:
    """What a sender waits for, and for how long at most."""

    stage: str
    timeout_s: float = DEFAULT_TIMEOUT_S


def read_hold(query_string: bytes) -> Hold | None:
    """The wait a query asks for, or None. Raises `Invalid` for a stage or a time there is not."""
    query = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))
    stage = query.get("wait")
    timeout_s = _timeout(query.get("timeout_s"))
    if stage is None:
        return None
    if stage not in STAGES:
        raise Invalid("invalid_enum", "wait is claimed or outcome.", field="wait")
    return Hold(stage, timeout_s)


class Waiting:
    """Holds the answers to senders who want to know how it went."""

    def __init__(self, *, service: Service, watch: Watch, clock: Clock, holds: Holds) -> None:
        self._service = service
        self._watch = watch
        self._clock = clock
        self._holds = holds

    async def hold(
        self, wanted: Hold, standing: Standing, principal: Principal, receive: Receive, check: Check
    ) -> tuple[Standing, JsonObject]:
        """The message as it stands when it got there, ended, or the time was over; and what `waited` says of it.

        The message is accepted already, so this never raises for a neighbour that is away: then nothing was reached.
        `check` raises once the caller's key counts no more: then nobody is told more than what was known before.
        """
        started_at = self._clock.now()
        latest = _Latest(standing)
        try:
            async with self._holds.at_most(wanted.timeout_s, receive, check):
                await self._follow(wanted, latest, principal)
        except Unavailable as error:
            log.warning("wait_cut_short", message_id=standing.history.message.id, code=error.code)
        waited_s = round((self._clock.now() - started_at).total_seconds(), 3)
        reached = has_reached(wanted.stage, latest.standing.execution)
        return latest.standing, {"for": wanted.stage, "reached": reached, "waited_s": waited_s}

    async def _follow(self, wanted: Hold, latest: "_Latest", principal: Principal) -> None:
        message_id = latest.standing.history.message.id
        async with self._watch.message(latest.standing.history.ulid) as moves:
            # Whatever happened before we listened is in this reading; whatever happens after wakes us.
            latest.standing = await self._service.find_message(message_id, principal, "message.follow")
            while not _is_over(wanted, latest.standing.execution):
                await anext(moves)
                latest.standing = await self._service.find_message(message_id, principal, "message.follow")


@dataclass(slots=True)
class _Latest:
    """What is known when the wait ends, in whichever way it ends."""

    standing: Standing


def has_reached(stage: str, execution: Execution) -> bool:
    """Say whether somebody has taken the message, or its outcome is there."""
    if stage == "outcome" or not execution.is_open:
        return execution.state is State.DELIVERED
    return execution.state not in _UNTAKEN


def _is_over(wanted: Hold, execution: Execution) -> bool:
    return not execution.is_open or has_reached(wanted.stage, execution)


def _timeout(text: str | None) -> float:
    if text is None:
        return DEFAULT_TIMEOUT_S
    if not text.isascii() or not text.isdigit() or not MIN_TIMEOUT_S <= int(text[:9]) <= MAX_TIMEOUT_S:
        message = f"timeout_s is a whole number from {MIN_TIMEOUT_S} to {MAX_TIMEOUT_S}."
        raise Invalid("out_of_range", message, field="timeout_s")
    return float(text)
