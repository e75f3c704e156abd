"""The notes `up` leaves for other commands: private, whole, and gone when it is."""

import stat
from pathlib import Path

import pytest

from cli.places import RUN_FILE, Run, announced, read_run, write_private

RUN = Run(url="u", api_key="k", nats_url="n", redis_url="r", monitor_state_dir=None, pid=1)


def test_the_note_is_private_and_lasts_as_long_as_the_run(tmp_path: Path) -> None:
    with announced(tmp_path, RUN):
        assert stat.S_IMODE((tmp_path / RUN_FILE).stat().st_mode) == 0o600
        assert read_run(tmp_path) == RUN
    assert read_run(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": "u"}'])
def test_a_note_nobody_understands_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / RUN_FILE).write_text(text)
    assert read_run(tmp_path) is None


def test_a_private_file_replaces_an_open_one_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]
