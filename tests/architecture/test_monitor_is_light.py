"""An agent's host carries the monitor's luggage and nobody else's."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("fastapi", "redis", "starlette", "uvicorn", "gateway", "router")
ABSENT = (*HEAVY, "aiohttp")
"""The broker's client takes aiohttp along where it is installed, for WebSockets; it has to do without."""
WORLDLY = {"asyncio", "anyio", "time", "os", "httpx", "nats", "random", "infra"}


def run(script: str) -> str:
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return found.stdout.strip()


@pytest.mark.parametrize("module", ["monitor.__main__", "monitor.session"])
def test_importing_the_monitor_brings_no_server_and_no_store(module: str) -> None:
    assert run(f"import sys, {module}; print(sorted(set({HEAVY!r}) & set(sys.modules)))") == "[]"


@pytest.mark.parametrize("module", ["monitor.__main__", "monitor.session"])
def test_the_monitor_runs_where_they_are_not_installed(module: str) -> None:
    assert run(f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r})); import {module}; print('fine')") == "fine"


@pytest.mark.parametrize("module", ["attachment", "heartbeat", "background"])
def test_the_pure_files_know_neither_clock_nor_loop(module: str) -> None:
    nodes = list(ast.walk(ast.parse(Path("monitor", f"{module}.py").read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not {name.partition(".")[0] for name in names} & WORLDLY
