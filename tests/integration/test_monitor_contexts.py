"""What a session leaves in place of its word that a message is in context: nobody else has to wait for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import anyio
from anyio.abc import TaskGroup

from infra.clock import SystemIds
from infra.spool import JournalFolder, SpoolFolder
from monitor.bell import Bell
from monitor.contexts import Contexts
from monitor.ports import Box, FolderName, Gateway, Shelf

FOLDER = FolderName(slug="notes", label="main")


class Said:
    """A gateway that takes every word."""

    def __init__(self) -> None:
        self.of: list[str] = []

    async def in_context(self, execution_id: str, lease: int | None) -> None:
        self.of.append(execution_id)


class Session:
    """One session's folder, and who looks at it."""

    def __init__(self, root: Path, tasks: TaskGroup) -> None:
        self.said = Said()
        self.bell = Bell()
        self.spool = SpoolFolder(root)
        self.journal = JournalFolder(root)
        self.spool.prepare(FOLDER.slug)
        self.box = root / "sessions" / FOLDER.slug / FOLDER.label / Box.IN_CONTEXT
        self.box.mkdir(mode=0o700, parents=True)
        self.box.parent.chmod(0o700)
        gateway = cast(Gateway, self.said)
        self.contexts = Contexts(gateway=gateway, spool=self.spool, journal=self.journal, bell=self.bell, tasks=tasks)

    def obstruct(self) -> str:
        """A folder where the monitor looks for a file."""
        execution_id = f"exec_{SystemIds().ulid()}"
        (self.box / f"{execution_id}.json").mkdir()
        return execution_id

    def claim(self, execution_id: str) -> None:
        self.journal.put(Shelf.CLAIMED, execution_id, {"slug": FOLDER.slug, "label": FOLDER.label})


@asynccontextmanager
async def session(root: Path) -> AsyncIterator[Session]:
    async with anyio.create_task_group() as tasks:
        yield Session(root, tasks)
        tasks.cancel_scope.cancel()


async def test_a_folder_in_a_files_place_does_not_end_the_look_at_the_others(tmp_path: Path) -> None:
    async with session(tmp_path) as own:
        own.obstruct()
        claimed = f"exec_{SystemIds().ulid()}"
        own.claim(claimed)
        (own.box / f"{claimed}.json").touch(mode=0o600)

        own.contexts.look(FOLDER)

        assert await own.bell.wait(5)
        assert own.said.of == [claimed]
        assert [path.is_dir() for path in own.box.iterdir()] == [True]


async def test_what_cannot_be_removed_is_said_once_and_delays_no_outcome(tmp_path: Path) -> None:
    async with session(tmp_path) as own:
        execution_id = own.obstruct()
        own.claim(execution_id)
        own.contexts.look(FOLDER)
        assert await own.bell.wait(5)

        own.contexts.look(FOLDER)

        assert not own.contexts.delays(execution_id)
        assert own.said.of == [execution_id]
        (own.box / f"{execution_id}.json").rmdir()
        own.contexts.look(FOLDER)
        assert not list(own.box.iterdir())
