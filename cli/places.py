"""Where things lie on this machine: the product's root, its data folder, and the note a running `up` leaves there."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

RUN_FILE: Final = "run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a running `up` tells the other commands: where it answers, and the key of its default owner."""

    url: str
    api_key: str
    nats_url: str
    redis_url: str
    monitor_state_dir: str | None
    pid: int


def root() -> Path:
    """The source tree when run from one, else the current directory."""
    tree = Path(__file__).resolve().parents[1]
    return tree if (tree / "pyproject.toml").exists() else Path.cwd()


def default_data_dir() -> Path:
    """What POSTROOM_DATA_DIR names, else a folder beside the product."""
    named = os.environ.get("POSTROOM_DATA_DIR")
    return Path(named) if named else root() / ".postroom" / "data"


def read_run(data_dir: Path | None = None) -> Run | None:
    """The note of the `up` that runs on this data folder; None when none runs, or the note is of another version."""
    try:
        return Run(**json.loads(((data_dir or default_data_dir()) / RUN_FILE).read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


@contextmanager
def announced(data_dir: Path, run: Run) -> Iterator[None]:
    """Leave the note for as long as the block runs."""
    write_json(data_dir / RUN_FILE, asdict(run))
    try:
        yield
    finally:
        (data_dir / RUN_FILE).unlink(missing_ok=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    write_private(path, json.dumps(value) + "\n")


def write_private(path: Path, text: str) -> None:
    """Put a 0600 file at `path`: it appears whole, or not at all."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
