"""Messages' events this process has seen, as stored bytes; the least recently used dropped first.

Bytes, not objects: tens of thousands of remembered histories would make every full garbage collection walk over all of
them, in the middle of somebody's request.
"""

from collections import OrderedDict
from typing import Final

GENESIS_SEQ: Final = 0

Remembered = tuple[tuple[int, bytes], ...]
"""(sequence, payload) of each event in order."""


class HistoryCache:
    """A bounded memory of histories."""

    def __init__(self, *, max_histories: int = 20_000, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._max_histories = max_histories
        self._max_bytes = max_bytes
        self._known: OrderedDict[str, Remembered] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def n_bytes(self) -> int:
        return self._bytes

    def get(self, ulid: str) -> Remembered:
        """The known events; none when the message is not known."""
        known = self._known.get(ulid)
        if known is None:
            return ()
        self._known.move_to_end(ulid)
        return known

    def put(self, ulid: str, events: Remembered) -> None:
        self.drop(ulid)
        self._known[ulid] = events
        self._bytes += _size(events)
        while len(self._known) > self._max_histories or self._bytes > self._max_bytes:
            _, dropped = self._known.popitem(last=False)
            self._bytes -= _size(dropped)

    def extend(self, ulid: str, after_seq: int, seq: int, payload: bytes) -> None:
        """Add our own append; a history that does not end at `after_seq` is forgotten instead."""
        known = self._known.get(ulid, ())
        if after_seq == GENESIS_SEQ:
            self.put(ulid, ((seq, payload),))
        elif known and known[-1][0] == after_seq:
            self.put(ulid, (*known, (seq, payload)))
        else:
            self.drop(ulid)

    def drop(self, ulid: str) -> None:
        if known := self._known.pop(ulid, ()):
            self._bytes -= _size(known)


def _size(events: Remembered) -> int:
    return sum([len(payload) for _, payload in events])
