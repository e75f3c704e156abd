"""The session's side of the hand-over: a folder, a heartbeat, offers, claims, answers and outcomes.

    folder = SessionFolder(state_dir, "cue-mac-app", "main")
    folder.open()
    async for offer in folder.offers():
        folder.claim(offer)
        answer = await folder.wait_answer(offer.execution_id, timeout_s=30)
        if isinstance(answer, Delivery):
            folder.in_context(offer.execution_id)
            folder.outcome(offer.execution_id, success=True, result=work(answer.message))
    await folder.close()

`open` makes the folder and touches the heartbeat; touch it again at least every minute (`keep_touching`), for the
monitor attaches and keeps attached only what lives.
"""

import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio

from contracts.ids import EXECUTION_ID, SLUG
from contracts.records import JsonObject
from monitor.ports import HEARTBEAT, LABEL, SIDECAR, Box

POLL_S: Final = 0.1
SESSION_BOXES: Final = (Box.CLAIMS, Box.IN_CONTEXT, Box.OUTCOMES)


class NotAttached(Exception):
    """The monitor has not attached this session, or no monitor runs here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferSeen:
    """An execution this session may claim until `claim_before` (RFC 3339, the server's clock)."""

    execution_id: str
    message_id: str
    claim_before: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The claim is won: the message is this session's to work on, and it owes an outcome."""

    execution_id: str
    message: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The claim or the outcome was refused; `code` is the gateway's, or the monitor's."""

    execution_id: str
    code: str
    message: str


class SessionFolder:
    def __init__(self, state_dir: Path, agent_slug: str, label: str) -> None:
        if not SLUG.match(agent_slug) or not LABEL.match(label):
            raise ValueError("a slug, and a label of letters, digits, dot, underscore and dash, are needed")
        self.path = state_dir / "sessions" / agent_slug / label
        self._seen: set[tuple[str, str | None]] = set()

    def open(self) -> None:
        """Make the folder and say that we live. A folder of an earlier session with this label is taken over."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for box in SESSION_BOXES:
            (self.path / box).mkdir(mode=0o700, exist_ok=True)
        self.touch()

    def touch(self) -> None:
        """Say that we live. Raises `FileNotFoundError` when somebody removed the folder."""
        descriptor = os.open(self.path / HEARTBEAT, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.utime(descriptor)
        finally:
            os.close(descriptor)

    async def keep_touching(self, every_s: float = 30.0) -> None:
        """Touch until cancelled."""
        while True:
            self.touch()
            await anyio.sleep(every_s)

    # --- who we are ------------------------------------------------------------------------------------------------

    def sidecar(self) -> JsonObject | None:
        """`{agent_id, address, label, session_id, session_token, attached_at}`, or None when not attached."""
        return _read(self.path / SIDECAR)

    async def wait_attached(self, timeout_s: float = 30.0) -> JsonObject:
        """Wait until the monitor attached us; returns the sidecar. Raises `NotAttached`."""
        with anyio.move_on_after(timeout_s):
            while True:
                found = self.sidecar()
                if found is not None:
                    return found
                await anyio.sleep(POLL_S)
        raise NotAttached("no monitor attached this session in time")

    # --- work ------------------------------------------------------------------------------------------------------

    def offers_now(self) -> list[OfferSeen]:
        """What may be claimed at this moment, the oldest first."""
        found = []
        for execution_id in _names(self.path / Box.OFFERS):
            document = _read(self.path / Box.OFFERS / f"{execution_id}.json")
            if document is not None:
                message_id, claim_before = document.get("message_id", ""), document.get("claim_before")
                found.append(OfferSeen(execution_id=execution_id, message_id=message_id, claim_before=claim_before))
        return found

    async def offers(self) -> AsyncIterator[OfferSeen]:
        """Each offer once, as it comes, without end. An offer made anew is a new one."""
        while True:
            for offer in self.offers_now():
                key = (offer.execution_id, offer.claim_before)
                if key not in self._seen:
                    self._seen.add(key)
                    yield offer
            await anyio.sleep(POLL_S)

    def claim(self, offer: OfferSeen) -> None:
        """Ask for an offer. Raises `NotAttached`. The answer comes with `wait_answer`."""
        sidecar = self.sidecar()
        if sidecar is None:
            raise NotAttached("there is no session.json: the monitor has not attached this session")
        document = {"execution_id": offer.execution_id, "session_token": sidecar["session_token"]}
        (self.path / Box.REFUSALS / f"{offer.execution_id}.json").unlink(missing_ok=True)
        self._put(Box.CLAIMS, offer.execution_id, document)

    async def wait_answer(self, execution_id: str, timeout_s: float = 60.0) -> Delivery | Refusal:
        """Wait for what became of a claim. Raises `TimeoutError`."""
        with anyio.fail_after(timeout_s):
            while True:
                answer = self._delivery(execution_id) or self._refusal(execution_id)
                if answer is not None:
                    return answer
                await anyio.sleep(POLL_S)

    def in_context(self, execution_id: str) -> None:
        """Say that a delivery is before whoever works on it: in the turn, and not only in its file."""
        self._put(Box.IN_CONTEXT, execution_id, {})

    def outcome(
        self,
        execution_id: str,
        *,
        success: bool,
        result: Any = None,
        error: str | None = None,
        metadata: JsonObject | None = None,
        executed_via: str = "live",
    ) -> None:
        """Say what came of it. The monitor posts it until the gateway answers, also when we are gone by then."""
        document = {
            "success": success,
            "result": result,
            "error": error,
            "metadata": metadata or {},
            "executed_via": executed_via,
        }
        self._put(Box.OUTCOMES, execution_id, document)

    async def wait_posted(self, execution_id: str, timeout_s: float = 60.0) -> Refusal | None:
        """Wait until the gateway took an outcome (None) or refused it. Raises `TimeoutError`."""
        done = self.path / Box.DONE / f"{execution_id}.json"
        with anyio.fail_after(timeout_s):
            while not done.exists():
                refusal = self._refusal(execution_id)
                if refusal is not None:
                    return refusal
                await anyio.sleep(POLL_S)
        return None

    async def close(self, drain_s: float = 5.0) -> None:
        """Remove the folder, which detaches us; outcomes the monitor has not taken yet are waited for, a while."""
        with anyio.move_on_after(drain_s, shield=True):
            while _names(self.path / Box.OUTCOMES):
                await anyio.sleep(POLL_S)
        grave = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            # Gone in one step: a monitor never sees half a folder.
            self.path.rename(grave)
        except FileNotFoundError:
            return
        shutil.rmtree(grave)

    # --- files -----------------------------------------------------------------------------------------------------

    def _delivery(self, execution_id: str) -> Delivery | None:
        document = _read(self.path / Box.DELIVERIES / f"{execution_id}.json")
        return Delivery(execution_id=execution_id, message=document) if document is not None else None

    def _refusal(self, execution_id: str) -> Refusal | None:
        path = self.path / Box.REFUSALS / f"{execution_id}.json"
        document = _read(path)
        if document is None:
            return None
        path.unlink(missing_ok=True)
        return Refusal(
            execution_id=execution_id, code=document.get("code", "unknown"), message=document.get("message", "")
        )

    def _put(self, box: Box, execution_id: str, document: JsonObject) -> None:
        if not EXECUTION_ID.match(execution_id):
            raise ValueError("not an execution id")
        folder = self.path / box
        folder.mkdir(mode=0o700, exist_ok=True)
        draft = folder / f".{execution_id}.{secrets.token_hex(6)}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
            json.dump(document, file, allow_nan=False)
        draft.replace(folder / f"{execution_id}.json")


def _read(path: Path) -> JsonObject | None:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return document if isinstance(document, dict) else None


def _names(folder: Path) -> list[str]:
    """The execution ids with a file in a folder; drafts and other names do not count."""
    try:
        names = [path.stem for path in folder.iterdir() if path.suffix == ".json"]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if EXECUTION_ID.match(name))
