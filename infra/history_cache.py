"""Histories this process knows, the least recently used dropped first."""

from collections import OrderedDict

from contracts.events import History, Stored


class HistoryCache:
    """A bounded memory of histories. `max_bytes` counts the events as stored, which is a third of what they take."""

    def __init__(self, *, max_histories: int = 20_000, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._max_histories = max_histories
        self._max_bytes = max_bytes
        self._known: OrderedDict[str, tuple[History, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def n_bytes(self) -> int:
        return self._bytes

    def get(self, ulid: str) -> History | None:
        known = self._known.get(ulid)
        if known is None:
            return None
        self._known.move_to_end(ulid)
        return known[0]

    def put(self, history: History, n_bytes: int) -> None:
        self.drop(history.ulid)
        self._known[history.ulid] = (history, n_bytes)
        self._bytes += n_bytes
        while len(self._known) > self._max_histories or self._bytes > self._max_bytes:
            _, (_, dropped_bytes) = self._known.popitem(last=False)
            self._bytes -= dropped_bytes

    def extend(self, ulid: str, after_seq: int, stored: Stored, n_bytes: int) -> None:
        """Add our own append; a history that does not end at `after_seq` is forgotten instead."""
        history, known_bytes = self._known.get(ulid, (None, 0))
        if after_seq == History.GENESIS_SEQ:
            self.put(History(ulid=ulid, events=(stored,)), n_bytes)
        elif history is not None and history.head_seq == after_seq:
            self.put(History(ulid=ulid, events=(*history.events, stored)), known_bytes + n_bytes)
        else:
            self.drop(ulid)

    def size_of(self, ulid: str) -> int:
        """The bytes a known history counts; 0 when it is not known."""
        return self._known[ulid][1] if ulid in self._known else 0

    def drop(self, ulid: str) -> None:
        _, n_bytes = self._known.pop(ulid, (None, 0))
        self._bytes -= n_bytes
