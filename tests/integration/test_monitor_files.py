"""Files a session leaves for the monitor, the honest ones and the others."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from contracts.errors import Conflict, Malformed
from infra.files import DOCUMENT_MAX_BYTES, write_document
from infra.spool import FILES_MAX, FOLDERS_MAX, JournalFolder, SpoolFolder
from monitor.ports import Box, FolderName, Shelf

NAME = "exec_01jx5k9v3m7q2w8r4t6y0zacde"
MAIN = FolderName(slug="worker", label="main")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "sessions" / "worker" / "main"
    path.mkdir(mode=0o700, parents=True)
    return path


@pytest.fixture
def spool(tmp_path: Path, folder: Path) -> SpoolFolder:
    return SpoolFolder(tmp_path)


def symlink(path: Path) -> None:
    target = path.with_name("target")
    target.touch(0o600)
    path.symlink_to(target)


def hard_link(path: Path) -> None:
    target = path.with_name("target")
    target.touch(0o600)
    path.hardlink_to(target)


def world_writable(path: Path) -> None:
    path.touch()
    path.chmod(0o666)


def foreign(path: Path) -> None:
    path.touch(0o600)
    os.chown(path, 12345, 12345)


UNSAFE: list[tuple[Callable[[Path], object], str]] = [
    (symlink, "not_regular"),
    (os.mkfifo, "not_regular"),
    (Path.mkdir, "not_regular"),
    (hard_link, "hard_link"),
    (world_writable, "writable_by_others"),
]
IS_ROOT = os.geteuid() == 0


# --- the heartbeat -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "reason"), UNSAFE)
async def test_a_heartbeat_that_is_not_a_plain_file_of_ours_does_not_count(
    spool: SpoolFolder, folder: Path, make: Callable[[Path], object], reason: str
) -> None:
    make(folder / "heartbeat")
    reading = spool.heartbeat(MAIN)
    assert (reading.unsafe, reading.touched_at) == (reason, None)


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a file away")
async def test_a_foreign_heartbeat_does_not_count(spool: SpoolFolder, folder: Path) -> None:
    foreign(folder / "heartbeat")
    assert spool.heartbeat(MAIN).unsafe == "foreign_owner"


@pytest.mark.parametrize("ago", [timedelta(0), timedelta(days=-400), timedelta(days=20_000)])
async def test_a_heartbeat_says_when_it_was_touched_whenever_that_was(
    spool: SpoolFolder, folder: Path, ago: timedelta
) -> None:
    then = datetime(2026, 1, 1, tzinfo=UTC) - ago
    (folder / "heartbeat").touch(0o600)
    os.utime(folder / "heartbeat", (then.timestamp(), then.timestamp()))
    assert spool.heartbeat(MAIN).touched_at == then


async def test_what_a_heartbeat_holds_is_not_read(spool: SpoolFolder, folder: Path) -> None:
    with (folder / "heartbeat").open("wb") as file:
        file.truncate(1024 * 1024 * 1024)
    (folder / "heartbeat").chmod(0o600)
    assert spool.heartbeat(MAIN).unsafe is None


async def test_no_heartbeat_is_neither_fresh_nor_unsafe(spool: SpoolFolder) -> None:
    reading = spool.heartbeat(MAIN)
    assert (reading.touched_at, reading.unsafe) == (None, None)


# --- folders -------------------------------------------------------------------------------------------------------


async def test_only_safe_folders_with_a_plain_label_are_sessions(spool: SpoolFolder, folder: Path) -> None:
    agent = folder.parent
    for label in (".hidden", "a b", "new\nline", "..."):
        (agent / label).mkdir(mode=0o700)
    (agent / "link").symlink_to(folder)
    (agent / "file").touch()
    (agent / "open").mkdir()
    (agent / "open").chmod(0o777)
    assert spool.folders("worker") == [MAIN]


async def test_a_flood_of_folders_and_files_is_bounded(spool: SpoolFolder, folder: Path) -> None:
    for number in range(FOLDERS_MAX + 5):
        (folder.parent / f"s{number}").mkdir(mode=0o700)
    (folder / "claims").mkdir(mode=0o700)
    for number in range(1, FILES_MAX + 50):
        (folder / "claims" / f"{NAME}r{number}.json").touch(0o600)
    assert len(spool.folders("worker")) == FOLDERS_MAX
    assert len(spool.names(MAIN, Box.CLAIMS)) == FILES_MAX


async def test_only_names_of_executions_are_looked_at(spool: SpoolFolder, folder: Path) -> None:
    claims = folder / "claims"
    claims.mkdir(mode=0o700)
    for name in (f"{NAME}.json", f".{NAME}.json", f"{NAME}.json.tmp", "other.json", f"{NAME}\n.json", "exec_.json"):
        (claims / name).touch(0o600)
    assert spool.names(MAIN, Box.CLAIMS) == [NAME]


async def test_an_absent_folder_is_empty_and_writing_into_it_is_no_error(spool: SpoolFolder, folder: Path) -> None:
    folder.rmdir()
    spool.write(MAIN, Box.OFFERS, NAME, {})
    spool.write_sidecar(MAIN, {})
    spool.move(MAIN, NAME, Box.OUTCOMES, Box.DONE)
    assert spool.read(MAIN, Box.CLAIMS, NAME) is None
    assert not spool.names(MAIN, Box.CLAIMS)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../../etc/passwd", "exec_1", "", f"{NAME}/x"])
async def test_a_name_that_is_no_execution_is_never_a_path(spool: SpoolFolder, name: str) -> None:
    with pytest.raises(ValueError, match="not an execution id"):
        spool.write(MAIN, Box.OFFERS, name, {})


# --- documents -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "reason"), UNSAFE)
async def test_a_claim_that_is_not_a_plain_file_of_ours_is_not_read(
    spool: SpoolFolder, folder: Path, make: Callable[[Path], object], reason: str
) -> None:
    (folder / "claims").mkdir(mode=0o700)
    make(folder / "claims" / f"{NAME}.json")
    with pytest.raises(Malformed) as refused:
        spool.read(MAIN, Box.CLAIMS, NAME)
    assert (refused.value.code, refused.value.facts["reason"]) == ("file_unsafe", reason)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "file_not_json"),
        (b"[1]", "file_not_json"),
        (b"\xff", "file_not_json"),
        (b'{"a": NaN}', "file_not_json"),
        (b'{"a": "\\ud800"}', "file_not_json"),
        (b'{"a":' * 50_000, "file_too_large"),
        (b'{"a":' * 20_000, "file_not_json"),
        (b" " * (DOCUMENT_MAX_BYTES + 1), "file_too_large"),
    ],
)
async def test_a_document_that_cannot_be_sent_on_is_refused(
    spool: SpoolFolder, folder: Path, content: bytes, code: str
) -> None:
    (folder / "claims").mkdir(mode=0o700)
    path = folder / "claims" / f"{NAME}.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Malformed) as refused:
        spool.read(MAIN, Box.CLAIMS, NAME)
    assert refused.value.code == code


async def test_what_is_written_is_private_and_leaves_no_draft(spool: SpoolFolder, folder: Path) -> None:
    spool.write(MAIN, Box.OFFERS, NAME, {"a": 1})
    spool.write_sidecar(MAIN, {"session_token": "t"})
    assert [path.name for path in (folder / "offers").iterdir()] == [f"{NAME}.json"]
    assert (folder / "offers" / f"{NAME}.json").stat().st_mode & 0o777 == 0o600
    assert (folder / "session.json").stat().st_mode & 0o777 == 0o600
    assert json.loads((folder / "session.json").read_text()) == {"session_token": "t"}


async def test_writing_does_not_follow_a_link_somebody_put_there(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "document"
    target.write_text("untouched")
    path.symlink_to(target)
    write_document(path, {})
    assert target.read_text() == "untouched"
    assert not path.is_symlink()


# --- changes and journals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force_polling", [False, True])
async def test_a_touch_is_noticed(tmp_path: Path, folder: Path, force_polling: bool) -> None:
    spool = SpoolFolder(tmp_path, force_polling=force_polling)
    seen = anyio.Event()

    async def watch() -> None:
        async for _ in spool.changes():
            seen.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        with anyio.fail_after(10):
            while not seen.is_set():
                (folder / "heartbeat").write_bytes(os.urandom(4))
                await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()


async def test_a_journal_remembers_until_it_is_told_to_forget(tmp_path: Path) -> None:
    journal = JournalFolder(tmp_path)
    journal.put(Shelf.CLAIMED, NAME, {"a": 1})
    assert JournalFolder(tmp_path).get(Shelf.CLAIMED, NAME) == {"a": 1}
    assert journal.names(Shelf.CLAIMED) == [NAME]
    journal.drop(Shelf.CLAIMED, NAME)
    journal.drop(Shelf.CLAIMED, NAME)
    assert journal.get(Shelf.CLAIMED, NAME) is None


async def test_two_monitors_never_share_a_state_directory(tmp_path: Path) -> None:
    with JournalFolder(tmp_path).exclusive():
        with pytest.raises(Conflict, match="Another monitor"), JournalFolder(tmp_path).exclusive():
            pass
    with JournalFolder(tmp_path).exclusive():
        pass
