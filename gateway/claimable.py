"""What can be claimed now: chosen among the rows that wait, and shown with enough to claim with."""

from datetime import datetime
from typing import Any

from contracts.records import JsonObject, Principal
from contracts.words import Channel, State
from gateway.execution_search import Filter
from gateway.peer_executions import claimable_fields, task_of
from router.explain import instant
from router.service import Service


def claimable_at(now: datetime, *, task: str | None = None) -> Filter:
    """Lets through what a claim at `now` finds neither too early nor too late, of one task or of any.

    Views hold instants cut to whole milliseconds, as texts that sort like them. So is `now` here, and what is equal
    counts as too early and as too late: what is let through can be claimed.
    """
    text = instant(now) or ""

    def takes(view: JsonObject) -> bool:
        return (task is None or task_of(view) == task) and _is_open(view, text)

    return takes


def _is_open(view: JsonObject, now: str) -> bool:
    if view["state"] == State.OFFERED:
        return view["deadline_at"] is None or bool(view["deadline_at"] > now)
    # A row of an older program does not say when the next attempt is due.
    return bool((view.get("retry_at") or "") < now < view["expires_at"])


async def claimable_view(view: JsonObject, caller: Principal, service: Service) -> dict[str, Any]:
    channel = Channel.LIVE if view["state"] == State.OFFERED else Channel.BG
    return {
        "execution_id": view["execution_id"],
        "message_id": view["id"],
        "agent_id": view["to"]["agent_id"],
        "channel": channel.value,
        **await _offer(view["execution_id"], channel, caller, service),
        **claimable_fields(view),
    }


async def _offer(execution_id: str, channel: Channel, caller: Principal, service: Service) -> JsonObject:
    """The nonce is derived from the exact instant the window closes, which only the ledger knows."""
    before = None
    if channel is Channel.LIVE:
        before = (await service.find_execution(execution_id, caller)).execution.claim_before
    nonce = service.nonce(execution_id, before) if before else None
    return {"nonce": nonce, "claim_before": instant(before)}
