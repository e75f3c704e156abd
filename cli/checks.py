"""`postroom test` and `postroom lint`: what a change to the product itself has to pass."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final

import typer

from cli.failures import Failure
from cli.places import root

HTTP_TESTS: Final = "tests/integration/test_http_*.py"
PROGRAM_TESTS: Final = ("tests/e2e", "tests/faults")
PASS_THROUGH: Final = {"ignore_unknown_options": True, "allow_extra_args": True}


def test(context: typer.Context) -> None:
    """Run the tests: all of them, or what the arguments, which go to pytest, select.

    All of them run as four pytests side by side, because they wait most of their time.

    Example: postroom test tests/unit -k attestation
    """
    raise typer.Exit(_run(_pytest(*context.args)) if context.args else _all_tests())


def lint() -> None:
    """Run ruff (rules and format), mypy and import-linter, all of them, and say which failed.

    Example: postroom lint
    """
    failed = [name for name, argv in _linters() if not _passes(name, argv)]
    if failed:
        raise Failure(f"failed: {', '.join(failed)}")


def _all_tests() -> int:
    """Run three groups behind the rest; show what they said after it. The first status that is not 0."""
    http = sorted(str(path.relative_to(root())) for path in root().glob(HTTP_TESTS))
    groups = [("tests of the HTTP interface and of properties", [*http, "tests/property"])]
    groups += [(name, [name]) for name in PROGRAM_TESTS]
    rest = [f"--ignore={path}" for _, paths in groups for path in paths]
    with ExitStack() as stack:
        beside = [(name, *_beside(paths, stack)) for name, paths in groups]
        statuses = [_run(_pytest(*rest))]
        for name, process, said in beside:
            statuses.append(process.wait())
            _show(name, said)
    return next((status for status in statuses if status), 0)


def _beside(paths: Sequence[str], stack: ExitStack) -> "tuple[subprocess.Popen[bytes], IO[bytes]]":
    said = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    process = stack.enter_context(_started(_pytest(*paths), said))
    # Before the wait for its end: whoever interrupts us ends all of them.
    stack.callback(process.terminate)
    return process, said


def _show(name: str, said: IO[bytes]) -> None:
    print(f"== {name}, run beside", flush=True)
    said.seek(0)
    shutil.copyfileobj(said, sys.stdout.buffer)
    sys.stdout.flush()


def _pytest(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", *arguments]


def _linters() -> Sequence[tuple[str, Sequence[str | Path]]]:
    scripts = Path(sysconfig.get_path("scripts"))
    return (
        ("ruff check", [scripts / "ruff", "check", "."]),
        ("ruff format", [scripts / "ruff", "format", "--check", "."]),
        ("mypy", [sys.executable, "-m", "mypy"]),
        ("lint-imports", [scripts / "lint-imports"]),
    )


def _passes(name: str, argv: Sequence[str | Path]) -> bool:
    print(f"== {name}", flush=True)
    started = time.monotonic()
    status = _run(argv)
    print(
        f"-- {name}: {'ok' if status == 0 else f'failed with {status}'} in {time.monotonic() - started:.1f} s",
        flush=True,
    )
    return status == 0


def _run(argv: Sequence[str | Path]) -> int:
    """Run a tool of the development set in the source tree; its own exit status is ours."""
    try:
        return subprocess.run(argv, cwd=root(), env=_environment(), check=False).returncode
    except FileNotFoundError as missing:
        raise Failure(f"{missing.filename} is not installed; it belongs to the extra `dev`") from None


def _started(argv: Sequence[str | Path], output: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(argv, cwd=root(), env=_environment(), stdout=output, stderr=subprocess.STDOUT)


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(root()), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path}
