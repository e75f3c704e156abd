"""In context: the word that a turn or a program has taken its message, passed on to the gateway.

The work never depends on it: a refusal is noted, an outage ends with the patience, and everything else goes on.
"""

from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from contracts.errors import Rejected
from monitor.backoff import persist
from monitor.bell import Bell
from monitor.ports import Box, FolderName, Gateway, Journal, Shelf, Spool

LAST_WORD_S: Final = 1.0
"""How long an outcome waits for the word before it: told afterwards, it would be refused."""


async def say_in_context(gateway: Gateway, execution_id: str, lease: int | None) -> None:
    """Say it until the gateway answers, whatever that is; bound the patience with a cancel scope."""
    try:
        await persist(lambda: gateway.in_context(execution_id, lease), what="in_context")
    except Rejected as refusal:
        structlog.get_logger().info("in_context_refused", execution_id=execution_id, code=refusal.code)


def claimed_in(journal: Journal, folder: FolderName, execution_id: str) -> bool:
    """Whether this session won the execution, and has not reported it yet."""
    claimed = journal.get(Shelf.CLAIMED, execution_id)
    return claimed is not None and (claimed["slug"], claimed["label"]) == (folder.slug, folder.label)


class Contexts:
    """What sessions say of their deliveries: the name of a file is all there is to it."""

    def __init__(self, *, gateway: Gateway, spool: Spool, journal: Journal, bell: Bell, tasks: TaskGroup) -> None:
        self._gateway = gateway
        self._spool = spool
        self._journal = journal
        self._bell = bell
        self._tasks = tasks
        self._saying: dict[str, anyio.CancelScope] = {}
        self._stuck: dict[FolderName, set[str]] = {}
        """What could not be removed, a folder in a file's place say: looked past, so that nothing waits for it."""

    def look(self, folder: FolderName) -> None:
        """Begin to pass on what this session said since."""
        found = self._spool.names(folder, Box.IN_CONTEXT)
        stuck = self._stuck[folder] = self._stuck.get(folder, set()).intersection(found)
        for execution_id in found:
            if execution_id in self._saying:
                continue
            if execution_id not in stuck and claimed_in(self._journal, folder, execution_id):
                self._saying[execution_id] = anyio.CancelScope()
                self._tasks.start_soon(self._say, folder, execution_id)
            else:
                self._remove(folder, execution_id)

    def delays(self, execution_id: str) -> bool:
        """Whether the word is on its way; from now on it has little time left, for its outcome is there."""
        scope = self._saying.get(execution_id)
        if scope is None:
            return False
        scope.deadline = min(scope.deadline, anyio.current_time() + LAST_WORD_S)
        return True

    async def _say(self, folder: FolderName, execution_id: str) -> None:
        try:
            with self._saying[execution_id]:
                await say_in_context(self._gateway, execution_id, None)
            self._remove(folder, execution_id)
        finally:
            del self._saying[execution_id]
            self._bell.ring()

    def _remove(self, folder: FolderName, execution_id: str) -> None:
        stuck = self._stuck.setdefault(folder, set())
        try:
            self._spool.remove(folder, Box.IN_CONTEXT, execution_id)
        except OSError as error:
            if execution_id not in stuck:
                structlog.get_logger().error("spool_failed", execution_id=execution_id, error=repr(error))
            stuck.add(execution_id)
        else:
            stuck.discard(execution_id)
