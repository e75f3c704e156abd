"""What a background run is given, and what is made of how it ended. Pure.

ended                                     told to the gateway
exit 0                                    outcome: success, with the last line as its result when that is JSON
exit 0, last line {"success": false}      outcome: failed; the work was done and says so
exit > 0                                  release: exit_nonzero
ended by a signal                         release: killed_by_signal
wall timeout                              release: wall_timeout
never started                             release: spawn_failed
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from signal import Signals
from typing import Any, Final

from contracts.records import JsonObject
from monitor.ports import Leased, Report, Run

BASE_ENV: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
RESULT_MAX_BYTES: Final = 96 * 1024
"""A request body may have 128 KiB; the rest of the outcome needs its share."""
DETAIL_MAX_CHARS: Final = 2_000
ERROR_MAX_CHARS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """An attempt that came to nothing: the gateway retries or ends it."""

    reason: str
    detail: str | None = None


def environment(base: Mapping[str, str], allowed: Iterable[str], leased: Leased, agent_id: str) -> dict[str, str]:
    """The child's whole environment: allowed names, and ids. Nothing a sender wrote is in it."""
    names = (*BASE_ENV, *allowed)
    facts = {
        "AGENT_ID": agent_id,
        "EXECUTION_ID": leased.execution_id,
        "ATTEMPT": str(leased.attempt),
    }
    return {name: base[name] for name in names if name in base} | facts


def input_line(leased: Leased) -> bytes:
    """The message view with attempt and execution id, as one line of ASCII JSON."""
    facts = {"attempt": leased.attempt, "execution_id": leased.execution_id}
    return json.dumps(leased.message | facts).encode() + b"\n"


def judge(run: Run, leased: Leased) -> Report | Release:
    """Say what the gateway is told about a run."""
    if run.spawn_error is not None or run.exit_code is None:
        return Release(reason="spawn_failed", detail=run.spawn_error)
    if run.timed_out:
        return Release(reason="wall_timeout", detail=_tail(run.stderr))
    if run.exit_code < 0:
        return Release(reason="killed_by_signal", detail=_tail(run.stderr, f"{_signal_name(-run.exit_code)}: "))
    if run.exit_code > 0:
        return Release(reason="exit_nonzero", detail=_tail(run.stderr, f"exit {run.exit_code}: "))
    return _success(run, leased)


def without_result(report: Report, refused: str) -> Report:
    """The same outcome without what the gateway did not take; `refused` is its code."""
    metadata = report.metadata | {"result_omitted": refused}
    return replace(report, result=None, error=None, metadata=metadata)


def _success(run: Run, leased: Leased) -> Report:
    result, omitted = _result(run.stdout)
    metadata: JsonObject = {"exit_code": 0, "duration_ms": run.duration_ms, "truncated": run.truncated}
    if omitted:
        metadata["result_omitted"] = omitted
    failed = isinstance(result, dict) and result.get("success") is False
    return Report(
        success=not failed,
        result=result,
        error=_error(result) if failed else None,
        metadata=metadata,
        executed_via="bg",
        lease=leased.number,
    )


def _result(stdout: bytes) -> tuple[Any, str | None]:
    lines = stdout.split(b"\n")
    last = next((line for line in reversed(lines) if line.strip()), b"")
    if len(last) > RESULT_MAX_BYTES:
        return None, "result_too_large"
    return parse_json(last), None


def parse_json(text: bytes) -> Any:
    """A JSON value that can be sent on as JSON, or None: no NaN, no infinity, no half of a surrogate pair."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value


def _error(result: Any) -> str | None:
    error = result.get("error")
    return error[:ERROR_MAX_CHARS] if isinstance(error, str) else None


def _tail(stderr: bytes, lead: str = "") -> str:
    """The end of what the child complained about: the last line is the one that explains."""
    text = stderr[-4 * DETAIL_MAX_CHARS :].decode(errors="replace").replace("\0", "").strip()
    room = DETAIL_MAX_CHARS - len(lead)
    return lead + text[-room:]


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"
