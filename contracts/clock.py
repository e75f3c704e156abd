"""Time and identity as ports: whoever needs an instant or a fresh id is given one of these."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The present instant, aware, in UTC."""
        ...


class Ids(Protocol):
    def ulid(self) -> str:
        """A fresh lower-case ULID: 26 characters of Crockford's alphabet, sortable by time of minting."""
        ...

    def agent(self) -> str:
        """A fresh agent id: `agent_` and 12 random characters of `[a-z0-9]`."""
        ...

    def secret(self, n_bytes: int) -> bytes:
        """`n_bytes` from the operating system's generator."""
        ...
