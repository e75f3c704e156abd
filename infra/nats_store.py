"""The broker's store as we find it before a start: each account's streams lie in a folder named after its key.

An older installation wrote them under the account's name; those move. Streams of an unknown account mean that the
identity was lost or exchanged: a broker would start beside them, empty, and nobody would notice.
"""

import re
from pathlib import Path
from typing import Final

from infra.embedded_errors import EmbeddedError

ACCOUNT_KEY: Final = re.compile(r"A[A-Z2-7]{55}\Z")


def adopt_streams(store_dir: Path, name: str, public: str) -> None:
    """Let the account with the key `public` have the streams that account `name` of a configuration file wrote.

    Call it while no broker runs on the store. Moves a folder and copies nothing; done already, it does nothing.
    Raises `EmbeddedError` when the store holds streams of both, or of another account: a person must say which count.
    """
    refuse_strangers(store_dir, public)
    streams = store_dir / "jetstream"
    old, new = streams / name, streams / public
    if not old.is_dir():
        return
    if new.exists():
        raise EmbeddedError(f"{old} and {new.name} beside it both hold streams; move away the one that does not count")
    old.rename(new)


def refuse_strangers(store_dir: Path, public: str | None = None) -> None:
    """Raise `EmbeddedError` when the store holds streams of another account than `public`, without one of any key."""
    streams = store_dir / "jetstream"
    stranger = next((path for path in streams.glob("A*") if ACCOUNT_KEY.match(path.name) and path.name != public), None)
    if stranger is not None:
        raise EmbeddedError(f"{stranger} holds streams of another identity; put that identity back, or move it away")
