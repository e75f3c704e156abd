"""The small parts of the command line: metadata, one-line texts, the lock, steps that run together."""

import sys
from pathlib import Path

import anyio
import pytest

from cli.concurrently import concurrently
from cli.data_lock import locked
from cli.demo_cast import APP, write_monitor_config
from cli.failures import Failure, Misused
from cli.output import one_line
from cli.report import Report, StepFailed
from cli.send import pairs
from monitor.configuration import load


def test_metadata_keeps_everything_after_the_first_equals_sign() -> None:
    assert pairs(["a=b=c", "d="]) == {"a": "b=c", "d": ""}


@pytest.mark.parametrize("text", ["a", "=b"])
def test_metadata_without_a_name_or_a_value_is_misuse(text: str) -> None:
    with pytest.raises(Misused):
        pairs([text])


def test_a_text_for_the_terminal_is_one_printable_line() -> None:
    assert one_line("a\nb\x1b[31m\x07c") == "a b [31m c"
    assert one_line("x" * 100, 10) == "x" * 9 + "…"
    assert one_line(None) == ""


def test_the_lock_names_who_holds_it_and_goes_with_its_block(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with locked(data):
        with pytest.raises(Failure, match=r"process \d+\) runs on .*--data"), locked(data):
            raise AssertionError
    with locked(data):
        assert data.stat().st_mode & 0o777 == 0o700


async def test_the_first_failure_cancels_the_others_and_is_raised_alone() -> None:
    ended: list[str] = []

    async def fails() -> None:
        raise Failure("broken")

    async def waits() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("cancelled")

    with pytest.raises(Failure, match="broken"):
        await concurrently(waits, fails)
    assert ended == ["cancelled"]


def test_a_step_that_fails_is_told_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(as_json=True)
    with pytest.raises(StepFailed, match="nats: no port"), report.step("nats"):
        raise Failure("no port")
    assert '"step": "nats", "ok": false' in capsys.readouterr().out


def test_the_monitors_configuration_can_be_read_by_the_monitor(tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted" \\ föl\x7fder 🎈'
    folder.mkdir()
    key = folder / "key"
    key.write_text("pr_key\n")
    key.chmod(0o600)
    write_monitor_config(
        folder / "monitor.toml",
        gateway_url="http://127.0.0.1:1",
        key_file=key,
        state_dir=folder / "state",
    )
    read = load(folder / "monitor.toml")
    assert read.state_dir == folder / "state"
    assert read.api_key == "pr_key"
    assert read.agents[0].agent == APP
    assert read.agents[0].background is not None
    assert read.agents[0].background.argv[0] == sys.executable
