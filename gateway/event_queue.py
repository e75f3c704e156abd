"""What one reader of an owner's events has yet to take of what all of them are told. Pure, and bounded.

shut ──open──▶ open: what the reader wants is kept until it is taken
  ▲              │
  └── too much ──┘ what was kept is dropped: the log still has it
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from contracts.records import JsonObject
from contracts.tenant_events import EventFilter, StoredEvent
from gateway.sse import frame

Test = Callable[[StoredEvent], bool]
FAMILY_END: Final = ".*"


@dataclass(frozen=True, slots=True)
class ToldEvent:
    """An event and its frame in a stream. The same for all readers, so it is rendered once."""

    event: StoredEvent
    frame: bytes


def told(event: StoredEvent) -> ToldEvent:
    return ToldEvent(event, frame(event.seq, event.type, entry(event)))


def entry(event: StoredEvent) -> JsonObject:
    """The event as lists and streams show it."""
    return {"seq": event.seq, **event.attributes}


class EventQueue:
    """The wanted events in the order of the log, at most `max_events` of them and about `max_bytes` of their frames."""

    __slots__ = ("_events", "_max_bytes", "_max_events", "_n_bytes", "_tests", "is_open")

    def __init__(self, wanted: EventFilter, *, max_events: int, max_bytes: int) -> None:
        self._tests = _tests(wanted)
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events: list[ToldEvent] = []
        self._n_bytes = 0
        self.is_open = False

    def __len__(self) -> int:
        return len(self._events)

    def open(self) -> None:
        """Keep everything from now on."""
        self._clear()
        self.is_open = True

    def shut(self) -> None:
        self._clear()
        self.is_open = False

    def add(self, batch: Sequence[ToldEvent]) -> None:
        """Keep the next events, or nothing at all any more when they are too many."""
        if not self.is_open:
            return
        for test in self._tests:
            batch = [each for each in batch if test(each.event)]
        self._events += batch
        self._n_bytes += sum([len(each.frame) for each in batch])
        if len(self._events) > self._max_events or self._n_bytes > self._max_bytes:
            self.shut()

    def take(self, after: int) -> list[ToldEvent]:
        """All that is kept behind `after`, which is kept no longer."""
        taken = self._events
        if taken and taken[0].event.seq <= after:
            taken = [each for each in taken if each.event.seq > after]
        self._clear()
        return taken

    def _clear(self) -> None:
        self._events = []
        self._n_bytes = 0


def _tests(wanted: EventFilter) -> list[Test]:
    """What an event of the owner has to pass, as the log's own filter would have it."""
    tests: list[Test] = []
    if wanted.agent_id is not None:
        source = f"/agents/{wanted.agent_id}"
        tests.append(lambda event: event.attributes["source"] == source)
    kind = wanted.type
    if kind is not None and kind.endswith(FAMILY_END):
        family = kind.removesuffix("*")
        tests.append(lambda event: event.type.startswith(family))
    elif kind is not None:
        tests.append(lambda event: event.type == kind)
    return tests
