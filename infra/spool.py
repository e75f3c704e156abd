"""The monitor's state directory: session folders, and the journals a restarted monitor resumes from."""

import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

import structlog
import watchfiles

from contracts.errors import Conflict
from contracts.ids import EXECUTION_ID, SLUG
from contracts.records import JsonObject
from infra.files import UnsafeFile, private_folder, read_document, safe_file, safe_folder, write_document
from monitor.ports import HEARTBEAT, LABEL, SIDECAR, Box, FolderName, HeartbeatReading, Shelf

FOLDERS_MAX: Final = 100
FILES_MAX: Final = 1_000
SCAN_MAX: Final = 20_000
"""How many names of one folder are looked at: somebody may fill it faster than we can read."""
WATCH_STEP_MS: Final = 10
WATCH_DEBOUNCE_MS: Final = 200
WATCH_TIMEOUT_MS: Final = 250
"""The watching thread hears of our end only between two of these."""
POLL_MS: Final = 500
"""Where the operating system cannot tell us about changes, we look this often."""

log = structlog.get_logger()


class SpoolFolder:
    """The session folders below `<state_dir>/sessions`."""

    def __init__(self, state_dir: Path, *, force_polling: bool = False) -> None:
        self._root = state_dir / "sessions"
        self._force_polling = force_polling
        self._complained: set[tuple[str, str]] = set()
        private_folder(self._root)

    def prepare(self, slug: str) -> None:
        if not SLUG.match(slug):
            raise ValueError("not a slug")
        private_folder(self._root / slug)

    def folders(self, slug: str) -> Sequence[FolderName]:
        names = sorted(name for name in self._scan(self._root / slug) if LABEL.match(name))
        found = [FolderName(slug=slug, label=name) for name in names]
        safe = list(islice((folder for folder in found if self._is_safe(folder)), FOLDERS_MAX + 1))
        if len(safe) > FOLDERS_MAX:
            self._complain("session_folders_too_many", slug, limit=FOLDERS_MAX)
        return safe[:FOLDERS_MAX]

    def heartbeat(self, folder: FolderName) -> HeartbeatReading:
        try:
            with safe_folder(self._path(folder)) as opened, safe_file(opened, HEARTBEAT) as descriptor:
                touched_s = os.fstat(descriptor).st_mtime
        except FileNotFoundError:
            return HeartbeatReading()
        except UnsafeFile as unsafe:
            return HeartbeatReading(unsafe=unsafe.reason)
        return _reading(touched_s)

    def names(self, folder: FolderName, box: Box) -> Sequence[str]:
        path = self._path(folder) / box
        aged = [(_age_key(path / name), name[:-5]) for name in self._scan(path) if _is_ours(name)]
        if len(aged) > FILES_MAX:
            self._complain("spool_flooded", f"{folder}/{box}", limit=FILES_MAX)
        return [name for _, name in sorted(aged)[:FILES_MAX]]

    def read(self, folder: FolderName, box: Box, execution_id: str) -> JsonObject | None:
        try:
            with safe_folder(self._path(folder) / box) as opened:
                return read_document(opened, _file(execution_id))
        except (FileNotFoundError, UnsafeFile):
            return None

    def write(self, folder: FolderName, box: Box, execution_id: str, document: JsonObject) -> None:
        name = _file(execution_id)
        try:
            (self._path(folder) / box).mkdir(mode=0o700, exist_ok=True)
            write_document(self._path(folder) / box / name, document)
        except FileNotFoundError:
            log.info("session_folder_gone", folder=str(folder))

    def move(self, folder: FolderName, execution_id: str, source: Box, target: Box) -> None:
        path = self._path(folder)
        try:
            (path / target).mkdir(mode=0o700, exist_ok=True)
            (path / source / _file(execution_id)).replace(path / target / _file(execution_id))
        except FileNotFoundError:
            log.debug("spool_file_gone", folder=str(folder), execution_id=execution_id, box=source)

    def remove(self, folder: FolderName, box: Box, execution_id: str) -> None:
        (self._path(folder) / box / _file(execution_id)).unlink(missing_ok=True)

    def write_sidecar(self, folder: FolderName, document: JsonObject) -> None:
        try:
            write_document(self._path(folder) / SIDECAR, document)
        except FileNotFoundError:
            log.info("session_folder_gone", folder=str(folder))

    def has_sidecar(self, folder: FolderName) -> bool:
        return os.path.lexists(self._path(folder) / SIDECAR)

    def remove_sidecar(self, folder: FolderName) -> None:
        (self._path(folder) / SIDECAR).unlink(missing_ok=True)

    async def changes(self) -> AsyncIterator[None]:
        """Told by the operating system; by looking again and again where that fails."""
        for polling in (self._force_polling, True):
            try:
                async for _ in watchfiles.awatch(
                    self._root,
                    watch_filter=None,
                    step=WATCH_STEP_MS,
                    debounce=WATCH_DEBOUNCE_MS,
                    rust_timeout=WATCH_TIMEOUT_MS,
                    force_polling=polling,
                    poll_delay_ms=POLL_MS,
                    ignore_permission_denied=True,
                ):
                    yield None
            except (OSError, RuntimeError) as error:
                log.warning("spool_watch_failed", error=repr(error), polling=polling)

    def _path(self, folder: FolderName) -> Path:
        return self._root / folder.slug / folder.label

    def _scan(self, path: Path) -> list[str]:
        try:
            with safe_folder(path) as opened, os.scandir(opened) as entries:
                names = [entry.name for entry in islice(entries, SCAN_MAX + 1)]
        except FileNotFoundError:
            return []
        except UnsafeFile as unsafe:
            self._complain("session_folder_unsafe", str(path), reason=unsafe.reason)
            return []
        if len(names) > SCAN_MAX:
            self._complain("spool_flooded", str(path), limit=SCAN_MAX)
        return names

    def _is_safe(self, folder: FolderName) -> bool:
        try:
            with safe_folder(self._path(folder)):
                return True
        except FileNotFoundError:
            return False
        except UnsafeFile as unsafe:
            self._complain("session_folder_unsafe", str(folder), reason=unsafe.reason)
            return False

    def _complain(self, event: str, where: str, **facts: object) -> None:
        """Once per place: the same folder is looked at many times a minute."""
        if (event, where) not in self._complained and len(self._complained) < SCAN_MAX:
            self._complained.add((event, where))
            log.warning(event, where=where, **facts)


class JournalFolder:
    """The monitor's own notes below `<state_dir>`, and the lock that keeps a second monitor out."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir
        for shelf in Shelf:
            private_folder(state_dir / shelf)

    def put(self, shelf: Shelf, execution_id: str, document: JsonObject) -> None:
        write_document(self._root / shelf / _file(execution_id), document, durable=True)

    def get(self, shelf: Shelf, execution_id: str) -> JsonObject | None:
        with safe_folder(self._root / shelf) as opened:
            return read_document(opened, _file(execution_id))

    def names(self, shelf: Shelf) -> Sequence[str]:
        return sorted(path.stem for path in (self._root / shelf).iterdir() if _is_ours(path.name))

    def drop(self, shelf: Shelf, execution_id: str) -> None:
        (self._root / shelf / _file(execution_id)).unlink(missing_ok=True)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        descriptor = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Conflict("state_dir_in_use", "Another monitor works in this state directory.") from None
        try:
            yield
        finally:
            os.close(descriptor)


def _file(execution_id: str) -> str:
    if not EXECUTION_ID.match(execution_id):
        raise ValueError("not an execution id")
    return f"{execution_id}.json"


def _is_ours(name: str) -> bool:
    return name.endswith(".json") and EXECUTION_ID.match(name[:-5]) is not None


def _age_key(path: Path) -> int:
    try:
        return os.lstat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def _reading(touched_s: float) -> HeartbeatReading:
    try:
        return HeartbeatReading(touched_at=datetime.fromtimestamp(touched_s, UTC))
    except (OverflowError, ValueError, OSError):
        # A file system can hold instants no calendar does.
        return HeartbeatReading(unsafe="time_out_of_range")
