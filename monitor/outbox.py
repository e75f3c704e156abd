"""Outcomes of live sessions on their way to the gateway: noted on disk first, then posted until they are answered."""

from typing import Final

import structlog
from anyio.abc import TaskGroup

from contracts.errors import Malformed, Rejected, Unauthenticated, Unavailable
from contracts.records import JsonObject
from monitor.backoff import Backoff, persist
from monitor.ports import Box, FolderName, Gateway, Journal, Report, Shelf, Spool

OUTBOX_BACKOFF: Final = Backoff(first_s=0.2, cap_s=15.0)
KEY_REFUSED_RETRY_S: Final = 60.0
"""A key that stopped counting may be replaced; an outcome cannot."""


class Outbox:
    def __init__(self, *, gateway: Gateway, journal: Journal, spool: Spool, tasks: TaskGroup) -> None:
        self._gateway = gateway
        self._journal = journal
        self._spool = spool
        self._tasks = tasks
        self._posting: set[str] = set()

    def put(self, execution_id: str, folder: FolderName, report: JsonObject) -> None:
        """Note an outcome; once this returns it survives us."""
        entry = {"slug": folder.slug, "label": folder.label, "report": report}
        self._journal.put(Shelf.OUTBOX, execution_id, entry)
        self._post_soon(execution_id)

    def resume(self) -> None:
        """Go on with what a monitor before us had noted."""
        for execution_id in self._journal.names(Shelf.OUTBOX):
            self._post_soon(execution_id)

    def holds(self, execution_id: str) -> bool:
        return execution_id in self._posting

    def _post_soon(self, execution_id: str) -> None:
        if execution_id not in self._posting:
            self._posting.add(execution_id)
            self._tasks.start_soon(self._post, execution_id)

    async def _post(self, execution_id: str) -> None:
        log = structlog.get_logger().bind(execution_id=execution_id)
        try:
            entry = self._entry(execution_id)
            if entry is None:
                log.error("outbox_entry_unreadable")
                return
            folder, report = entry
            refusal = await self._answer(execution_id, report)
            log.info("outcome_refused" if refusal else "outcome_posted", code=refusal.code if refusal else "ok")
            self._put_away(folder, execution_id, refusal)
        except OSError as error:
            # The entry stays, and is posted again: by the next look at the session's file, or by the next start.
            log.warning("outbox_failed", error=repr(error))
        finally:
            self._posting.discard(execution_id)

    def _put_away(self, folder: FolderName, execution_id: str, refusal: Rejected | None) -> None:
        """The journal last: a monitor killed in between posts the same outcome again, and is answered the same."""
        if refusal is not None:
            document = {"execution_id": execution_id, "code": refusal.code, "message": refusal.message}
            self._spool.write(folder, Box.REFUSALS, execution_id, document)
        self._spool.move(folder, execution_id, Box.OUTCOMES, Box.BAD if refusal else Box.DONE)
        self._spool.remove(folder, Box.DELIVERIES, execution_id)
        self._journal.drop(Shelf.OUTBOX, execution_id)
        self._journal.drop(Shelf.CLAIMED, execution_id)

    async def _answer(self, execution_id: str, report: Report) -> Rejected | None:
        try:
            await persist(lambda: self._post_once(execution_id, report), what="outcome", backoff=OUTBOX_BACKOFF)
        except Rejected as refusal:
            return refusal
        return None

    async def _post_once(self, execution_id: str, report: Report) -> None:
        try:
            await self._gateway.outcome(execution_id, report)
        except Unauthenticated as refused:
            raise Unavailable(refused.code, refused.message, retry_after_s=KEY_REFUSED_RETRY_S) from refused

    def _entry(self, execution_id: str) -> tuple[FolderName, Report] | None:
        try:
            entry = self._journal.get(Shelf.OUTBOX, execution_id)
        except Malformed:
            return None
        if entry is None:
            return None
        return FolderName(slug=entry["slug"], label=entry["label"]), Report(**entry["report"])
