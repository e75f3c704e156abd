"""`postroom --help` answers at once because nothing heavy is imported before it is needed."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("httpx", "anyio", "nats", "redis", "fastapi", "pydantic", "aiohttp", "rich", "structlog", "psutil")


def test_the_commands_are_known_without_their_luggage() -> None:
    code = f"import sys, cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
