"""Passwords we made up ourselves, kept in a file that only its owner can read."""

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path


def remembered_passwords(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Return one password per name from `path`, making the file the first time.

    Two programs that start together agree on one set. Raises `ValueError` when the file does not hold these names.
    """
    if not path.exists():
        _create(path, {name: new_password() for name in names})
    passwords = json.loads(path.read_text())
    if not isinstance(passwords, dict) or set(passwords) != set(names):
        raise ValueError(f"{path} does not hold the passwords of {', '.join(names)}; delete it to have it made again")
    return {name: str(passwords[name]) for name in names}


def new_password() -> str:
    """192 random bits. A letter leads, for nats.conf reads a value that starts like a number as one."""
    return f"pw{secrets.token_hex(24)}"


def _create(path: Path, passwords: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(passwords, file)
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link appears complete and never replaces what another program has put there.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
