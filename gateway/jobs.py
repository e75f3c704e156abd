"""Jobs: executions on the bg channel as Mobius' workers know them. Pure.

    a job's      is
    id           the execution's, so that each redrive is a job of its own
    run          the message
    attempt      the number of the lease: the fence
    action       `metadata.action`, else `metadata.task`, else `message`
    queue        `metadata.queue`, else `default`
    parameters   `metadata.parameters` or `metadata.payload` when it is an object, else the message itself as one

`completed` is an outcome. `failed` ends the attempt and not the job: it is queued again while there are attempts left.
"""

import base64
import binascii
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from contracts.errors import Invalid, Rejected
from contracts.events import AttemptFailed, Ended, History, Leased
from contracts.records import JsonObject
from gateway.peer_executions import payload_of, task_of
from gateway.ports import WorkerSeen
from gateway.presence import is_fresh
from gateway.strict_json import parse_object
from router.explain import instant

FIRST_LEASE_S: Final = 300
"""A worker may claim more than it begins at once, and beats only for what it has begun."""
LEASE_S: Final = 90
"""From the first beat on: three beats of a worker that beats as it is told."""
CONCURRENCY: Final = 10
"""How many jobs a worker has in hand at most, if it does not say: as many as their workers begin at once."""
HEARTBEAT_S: Final = 30
WORKER_FRESH_S: Final = 120
DEFAULT_QUEUE: Final = "default"
DEFAULT_ACTION: Final = "message"
# JSON spells each of them with six bytes: a result of many would not go into a record any more.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Lets through what a worker can execute; empty asks for nothing. `agent_ids` None: at any agent."""

    queues: Collection[str] = ()
    actions: Collection[str] = ()
    agent_ids: Collection[str] | None = None

    def takes(self, view: JsonObject) -> bool:
        return (
            (not self.queues or queue_of(view) in self.queues)
            and (not self.actions or action_of(view) in self.actions)
            and (self.agent_ids is None or view["to"]["agent_id"] in self.agent_ids)
        )


def action_of(view: JsonObject) -> str:
    return _text(view, "action") or task_of(view) or DEFAULT_ACTION


def queue_of(view: JsonObject) -> str:
    return _text(view, "queue") or DEFAULT_QUEUE


def job_view(view: JsonObject, session_id: str | None) -> JsonObject:
    """The job that a message view with a lease is."""
    return {
        "job_id": view["execution_id"],
        "run_id": view["id"],
        "workflow_name": view["subject"] or view["to"]["slug"],
        "step_name": view["to"]["slug"],
        "action": action_of(view),
        "queue": queue_of(view),
        "attempt": view["lease"]["number"],
        "max_attempts": view["max_attempts"],
        "parameters": _parameters(view),
        "agent_id": view["to"]["agent_id"],
        "agent_session_id": session_id,
        "heartbeat_interval_seconds": HEARTBEAT_S,
        "lease_expires_at": view["lease"]["expires_at"],
    }


def result_of(encoded: str | None) -> Any:
    """A job's output as an outcome holds it: what its JSON says, else its text, else its base64.

    Raises `Invalid` (`invalid_base64`).
    """
    if encoded is None:
        return None
    try:
        output = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("invalid_base64", "This is not standard base64.", field="result_b64") from None
    return _read(output, encoded)


def failure_of(error_type: str | None, message: str | None) -> str:
    return ": ".join(part for part in (error_type, message) if part) or "failed"


def gave_up(history: History, execution: int, attempt: int, *, worker_id: str, by: str) -> bool:
    """Whether this very worker has said of this very attempt that it failed: saying it again changes nothing."""
    is_theirs = False
    for event in (stored.event for stored in history.events if stored.event.execution == execution):
        if isinstance(event, Leased):
            is_theirs = (event.lease.number, event.lease.holder) == (attempt, worker_id)
        elif is_theirs and isinstance(event, AttemptFailed | Ended):
            return event.by == by
    return False


def project_worker_view(worker: WorkerSeen, now: datetime) -> JsonObject:
    return {
        "id": worker.worker_id,
        "name": worker.worker_id,
        "version": None,
        "last_seen_at": instant(worker.last_seen_at),
        "capabilities": list(worker.handlers),
        "stale": not is_fresh(worker.last_seen_at, now, max_age_s=WORKER_FRESH_S),
    }


def _text(view: JsonObject, name: str) -> str | None:
    found = view["metadata"].get(name)
    return found if isinstance(found, str) and found else None


def _parameters(view: JsonObject) -> JsonObject:
    parameters = view["metadata"].get("parameters")
    return parameters if isinstance(parameters, dict) else payload_of(view)


def _read(output: bytes, encoded: str) -> Any:
    try:
        found = parse_object(b'{"result":' + output + b"}")
    except Rejected:
        found = {}
    if found.keys() == {"result"}:
        return found["result"]
    try:
        text = output.decode()
    except UnicodeDecodeError:
        return {"base64": encoded}
    return {"base64": encoded} if _CONTROL.search(text) else text
