"""`postroom test` and `postroom lint`: what a change to the product itself has to pass."""

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from cli.failures import Failure
from cli.places import root

PASS_THROUGH: Final = {"ignore_unknown_options": True, "allow_extra_args": True}


def test(context: typer.Context) -> None:
    """Run the tests; without a path among the arguments: all of them. Arguments go to pytest.

    Example: postroom test tests/unit -k attestation
    """
    raise typer.Exit(_run([sys.executable, "-m", "pytest", *context.args]))


def lint() -> None:
    """Run ruff (rules and format), mypy and import-linter, all of them, and say which failed.

    Example: postroom lint
    """
    failed = [name for name, argv in _linters() if not _passes(name, argv)]
    if failed:
        raise Failure(f"failed: {', '.join(failed)}")


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
    tree = root()
    path = os.pathsep.join(filter(None, (str(tree), os.environ.get("PYTHONPATH"))))
    try:
        return subprocess.run(argv, cwd=tree, env=os.environ | {"PYTHONPATH": path}, check=False).returncode
    except FileNotFoundError as missing:
        raise Failure(f"{missing.filename} is not installed; it belongs to the extra `dev`") from None
