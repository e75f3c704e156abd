"""What a run is given and what is made of its end: the table of `monitor.background`."""

import json
import signal
from typing import Any

import pytest

from monitor.background import Release, environment, input_line, judge, without_result
from monitor.ports import Leased, Report, Run

LEASED = Leased(execution_id="exec_1", number=7, attempt=2, message={"message": "a\nb\u2028c \u2603", "subject": None})


def ended(**facts: Any) -> Report | Release:
    return judge(Run(**({"exit_code": 0} | facts)), LEASED)


@pytest.mark.parametrize(
    ("stdout", "result"),
    [
        (b'{"a": 1}\n', {"a": 1}),
        (b'noise\n"text"\n\n  \n', "text"),
        (b'{"a": 1}\r\n', {"a": 1}),
        (b"", None),
        (b"just text\n", None),
        (b'{"a": NaN}', None),
        (b"1e999", None),
        (b'"\\ud800"', None),
        (b"[" * 100_000 + b"]" * 100_000, None),
        (b"9" * 5_000, None),
        (b"\xff\xfe", None),
        (b'{"a": 1}\nlast words', None),
    ],
)
def test_the_last_line_is_the_result_when_it_is_json_that_can_be_sent_on(stdout: bytes, result: object) -> None:
    report = ended(stdout=stdout)
    assert isinstance(report, Report)
    assert report.success
    assert report.result == result


def test_success_false_is_a_failed_outcome_and_not_a_failed_attempt() -> None:
    report = ended(stdout=b'{"success": false, "error": "no such file"}', duration_ms=12, truncated=True)
    assert isinstance(report, Report)
    assert (report.success, report.error, report.lease, report.executed_via) == (False, "no such file", 7, "bg")
    assert report.metadata == {"exit_code": 0, "duration_ms": 12, "truncated": True}


def test_a_result_no_request_can_carry_is_left_out_and_said_so() -> None:
    report = ended(stdout=json.dumps("x" * 100_000).encode())
    assert isinstance(report, Report)
    assert (report.result, report.metadata["result_omitted"]) == (None, "result_too_large")
    assert without_result(report, "invalid_field").metadata["result_omitted"] == "invalid_field"


@pytest.mark.parametrize(
    ("facts", "reason", "detail"),
    [
        ({"exit_code": 3, "stderr": b"oh\0 no \xff\n"}, "exit_nonzero", "exit 3: oh no \ufffd"),
        ({"exit_code": -signal.SIGKILL}, "killed_by_signal", "SIGKILL: "),
        ({"exit_code": -200}, "killed_by_signal", "signal 200: "),
        ({"exit_code": -signal.SIGTERM, "timed_out": True, "stderr": b"slow"}, "wall_timeout", "slow"),
        ({"exit_code": None, "spawn_error": "FileNotFoundError"}, "spawn_failed", "FileNotFoundError"),
    ],
)
def test_every_other_end_gives_the_attempt_back_with_its_reason(facts: Any, reason: str, detail: str) -> None:
    assert ended(**facts) == Release(reason=reason, detail=detail)


def test_the_detail_is_the_end_of_what_the_child_complained_about() -> None:
    release = ended(exit_code=1, stderr=b"a" * 50_000 + b"the end")
    assert isinstance(release, Release)
    assert release.detail is not None
    assert len(release.detail) == 2_000
    assert release.detail.endswith("the end")


def test_the_input_is_one_line_whatever_the_message_holds() -> None:
    line = input_line(LEASED)
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == LEASED.message | {"attempt": 2, "execution_id": "exec_1"}


def test_the_environment_holds_allowed_names_and_ids_and_nothing_else() -> None:
    base = {"PATH": "/bin", "HOME": "/h", "API_KEY": "secret", "MODEL": "small", "EXECUTION_ID": "of somebody else"}
    assert environment(base, ["MODEL", "ABSENT"], LEASED, "agent_1") == {
        "PATH": "/bin",
        "HOME": "/h",
        "MODEL": "small",
        "AGENT_ID": "agent_1",
        "EXECUTION_ID": "exec_1",
        "ATTEMPT": "2",
    }
