"""Files a monitor shares with programs it does not trust: read with suspicion, written whole or not at all.

A file counts only when its opened descriptor says so: a regular file of our own user, with one link, that nobody else
can write. Names are never followed through a link, and a FIFO never blocks us.
"""

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from contracts.errors import Malformed
from contracts.records import JsonObject

DOCUMENT_MAX_BYTES: Final = 120 * 1024
"""Below the gateway's limit for a request body."""


class UnsafeFile(Exception):
    """A file or folder does not count; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@contextmanager
def safe_folder(path: Path) -> Iterator[int]:
    """Open a folder that is no link and that nobody but us can write; yields its descriptor.

    Raises `UnsafeFile`, or `FileNotFoundError` when there is none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError:
        raise UnsafeFile("not_a_folder") from None
    try:
        _refuse_foreign(os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def safe_file(folder: int, name: str) -> Iterator[int]:
    """Open a plain file of our own inside an opened folder; yields its descriptor. Raises as `safe_folder` does."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError:
        # A link (ELOOP), a socket (ENXIO), or a mode that shuts us out.
        raise UnsafeFile("not_regular") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeFile("not_regular")
        _refuse_foreign(found)
        if found.st_nlink != 1:
            raise UnsafeFile("hard_link")
        yield descriptor
    finally:
        os.close(descriptor)


def read_document(folder: int, name: str) -> JsonObject | None:
    """The JSON object in a file; None when it is absent.

    Raises `Malformed`: `file_unsafe`, `file_too_large`, `file_not_json`.
    """
    try:
        with safe_file(folder, name) as descriptor:
            data = _read_capped(descriptor)
    except FileNotFoundError:
        return None
    except UnsafeFile as unsafe:
        raise Malformed("file_unsafe", f"The file does not count: {unsafe.reason}.", reason=unsafe.reason) from None
    return _object(data)


def write_document(path: Path, document: JsonObject, *, durable: bool = False) -> None:
    """Put a 0600 file at `path`, whole and at once. Raises `FileNotFoundError` when its folder is gone."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def private_folder(path: Path) -> None:
    """Make a folder, and those above it, for our eyes only. One that exists keeps its mode."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _refuse_foreign(found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise UnsafeFile("foreign_owner")
    if found.st_mode & 0o022:
        raise UnsafeFile("writable_by_others")


def _read_capped(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        data = file.read(DOCUMENT_MAX_BYTES + 1)
    if len(data) > DOCUMENT_MAX_BYTES:
        raise Malformed("file_too_large", f"The file has more than {DOCUMENT_MAX_BYTES} bytes.")
    return data


def _object(data: bytes) -> JsonObject:
    try:
        value = json.loads(data)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Malformed("file_not_json", "The file is not JSON that can be sent on.") from None
    if not isinstance(value, dict):
        raise Malformed("file_not_json", "The file holds no JSON object.")
    return value
