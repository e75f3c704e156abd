"""What one follower of the ledger has yet to take of what another one reads. Pure, and bounded.

shut ──open──▶ open: everything behind `begin` is kept until it is taken
  ▲              │
  └── too much ──┘ what was kept is dropped: the ledger still has it
"""

from collections.abc import Sequence

from router.ports import Moved


class Backlog:
    """Events in the order of the ledger, at most `max_events` of them and about `max_bytes` of their records."""

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events: list[Moved] = []
        self._n_bytes = 0
        self._begin: int | None = None

    def __len__(self) -> int:
        return len(self._events)

    @property
    def is_open(self) -> bool:
        return self._begin is not None

    def open(self, begin: int) -> None:
        """Keep everything from now on; it lies behind `begin`."""
        self._clear()
        self._begin = begin

    def shut(self) -> None:
        self._clear()
        self._begin = None

    def reaches_back_to(self, seq: int) -> bool:
        """Whether nothing behind `seq` is missing."""
        return self._begin is not None and self._begin <= seq

    def add(self, batch: Sequence[Moved]) -> None:
        """Keep the next events, or nothing at all any more when they are too many."""
        if self._begin is None:
            return
        self._events += batch
        self._n_bytes += sum([moved.n_bytes for moved in batch])
        if len(self._events) > self._max_events or self._n_bytes > self._max_bytes:
            self.shut()

    def take(self, after_seq: int) -> list[Moved]:
        """All that is kept behind `after_seq`, which is kept no longer."""
        taken = self._events
        if taken and taken[0].stored.seq <= after_seq:
            taken = [moved for moved in taken if moved.stored.seq > after_seq]
        if taken:
            self._begin = taken[-1].stored.seq
        self._clear()
        return taken

    def _clear(self) -> None:
        self._events = []
        self._n_bytes = 0
