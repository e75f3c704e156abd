"""Requests to JetStream's API that we make ourselves: reading records by subject, stream facts, stream creation."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from contracts.errors import Unavailable
from infra.nats_connection import Broker

NO_MESSAGE_FOUND: Final = 10037
STREAM_NOT_FOUND: Final = 10059
ASKED_TOGETHER: Final = 256


class ApiRefused(Unavailable):
    """JetStream answered a request with an error; `err_code` is its own number for it."""

    def __init__(self, verb: str, error: dict[str, Any]) -> None:
        self.err_code = int(error.get("err_code", 0))
        super().__init__(
            "broker_refused", f"{verb}: {error.get('description')} ({self.err_code})", err_code=self.err_code
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """One message of a stream. `headers` is the raw block, empty when there is none."""

    subject: str
    seq: int
    payload: bytes
    headers: bytes = b""


async def call(broker: Broker, verb: str, body: Any = None, *, timeout_s: float | None = None) -> dict[str, Any]:
    """Ask `$JS.API.<verb>`; raises `ApiRefused` when the answer is an error."""
    payload = b"" if body is None else json.dumps(body).encode()
    message = await broker.request(f"$JS.API.{verb}", payload, timeout_s=timeout_s)
    answer = _answer(verb, message.data)
    _require_ok(verb, answer)
    return answer


async def next_on(broker: Broker, stream: str, subject: str, from_seq: int) -> StoredRecord | None:
    """The first record on `subject` whose sequence is `from_seq` or higher, asked of the stream's leader."""
    return await _record(broker, stream, {"seq": from_seq, "next_by_subj": subject})


async def last_on(broker: Broker, stream: str, subject: str) -> StoredRecord | None:
    """The newest record on `subject`, asked of the stream's leader."""
    return await _record(broker, stream, {"last_by_subj": subject})


async def last_on_each(broker: Broker, stream: str, subjects: Sequence[str]) -> list[StoredRecord | None]:
    """`last_on` for many subjects: the questions are sent together, in portions the connection takes easily."""
    found: list[StoredRecord | None] = []
    for start in range(0, len(subjects), ASKED_TOGETHER):
        found += await _last_on_portion(broker, stream, subjects[start : start + ASKED_TOGETHER])
    return found


async def last_seq(broker: Broker, stream: str) -> int:
    info = await call(broker, f"STREAM.INFO.{stream}")
    return int(info["state"]["last_seq"])


async def subjects(broker: Broker, stream: str, subject_filter: str) -> list[str]:
    """All subjects of `stream` that match, however many pages the broker needs to tell them."""
    found: list[str] = []
    while True:
        info = await call(broker, f"STREAM.INFO.{stream}", {"subjects_filter": subject_filter, "offset": len(found)})
        page = list(info["state"].get("subjects") or {})
        found += page
        if not page or len(found) >= int(info.get("total", 0)):
            return found


async def _record(broker: Broker, stream: str, query: dict[str, Any]) -> StoredRecord | None:
    message = await broker.request(f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps(query).encode())
    return _parsed(message.data)


async def _last_on_portion(broker: Broker, stream: str, subjects: Sequence[str]) -> list[StoredRecord | None]:
    asked = []
    try:
        for subject in subjects:
            reply, answer = broker.expect()
            asked.append((reply, answer))
            query = json.dumps({"last_by_subj": subject}).encode()
            await broker.publish(f"$JS.API.STREAM.MSG.GET.{stream}", query, reply=reply)
        timeout_s = broker.patience.request_s
        return [_parsed((await broker.answer_within(answer, timeout_s, "read")).data) for _, answer in asked]
    finally:
        for reply, _ in asked:
            broker.forget(reply)


def _parsed(payload: bytes) -> StoredRecord | None:
    answer = _answer("STREAM.MSG.GET", payload)
    if answer.get("error", {}).get("err_code") == NO_MESSAGE_FOUND:
        return None
    _require_ok("STREAM.MSG.GET", answer)
    message = answer["message"]
    return StoredRecord(
        subject=message["subject"],
        seq=message["seq"],
        payload=base64.b64decode(message.get("data", "")),
        headers=base64.b64decode(message.get("hdrs", "")),
    )


def _answer(verb: str, payload: bytes) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(payload)
    except ValueError:
        # Only "no responders" has no body.
        raise Unavailable("broker_unavailable", f"nobody answers {verb}") from None
    return answer


def _require_ok(verb: str, answer: dict[str, Any]) -> None:
    if "error" in answer:
        raise ApiRefused(verb, answer["error"])
