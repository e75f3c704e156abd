"""What a reader's queue keeps, and when it gives up."""

from typing import Any

import pytest

from contracts.tenant_events import EventFilter, StoredEvent
from gateway.event_queue import EventQueue, ToldEvent, told

MANY = 1_000_000


def event(seq: int, kind: str = "message.delivered", agent: str = "agent_aaaaaaaaaaaa") -> ToldEvent:
    attributes: dict[str, Any] = {"id": f"evt_{seq}", "type": kind, "source": f"/agents/{agent}", "data": {}}
    return told(StoredEvent(seq=seq, attributes=attributes))


def queue(
    *, kind: str | None = None, agent: str | None = None, max_events: int = 5, max_bytes: int = MANY
) -> EventQueue:
    found = EventQueue(EventFilter(owner="max", agent_id=agent, type=kind), max_events=max_events, max_bytes=max_bytes)
    found.open()
    return found


def seqs(batch: list[ToldEvent]) -> list[int]:
    return [each.event.seq for each in batch]


def test_a_frame_bears_the_sequence_the_type_and_the_entry_of_a_list() -> None:
    frame = event(7).frame

    assert frame.startswith(b'id: 7\nevent: message.delivered\ndata: {"seq":7,"id":"evt_7",')
    assert frame.endswith(b"}\n\n")


def test_what_is_taken_lies_behind_the_cursor_and_is_kept_no_longer() -> None:
    waiting = queue()
    waiting.add([event(1), event(2)])
    waiting.add([event(3)])

    assert seqs(waiting.take(1)) == [2, 3]
    assert len(waiting) == 0
    assert waiting.take(1) == []


def test_nothing_is_kept_before_it_is_open() -> None:
    waiting = queue()
    waiting.shut()
    waiting.add([event(1)])
    waiting.open()

    assert waiting.take(0) == []


def test_one_event_too_many_drops_all_and_shuts() -> None:
    waiting = queue(max_events=2)
    waiting.add([event(1), event(2)])
    assert waiting.is_open
    waiting.add([event(3)])

    assert not waiting.is_open
    assert waiting.take(0) == []


def test_frames_too_long_shut_it_as_well() -> None:
    waiting = queue(max_bytes=2 * len(event(1).frame))
    waiting.add([event(1), event(2)])
    assert waiting.is_open
    waiting.add([event(3)])

    assert not waiting.is_open


def test_what_was_taken_no_longer_counts() -> None:
    waiting = queue(max_events=1, max_bytes=len(event(1).frame))
    for seq in (1, 2, 3):
        waiting.add([event(seq)])
        assert seqs(waiting.take(0)) == [seq]


@pytest.mark.parametrize(
    ("kind", "agent", "kept"),
    [
        (None, None, [1, 2, 3, 4]),
        ("message.delivered", None, [1, 3]),
        ("message.*", None, [1, 2, 3]),
        (None, "agent_aaaaaaaaaaaa", [1, 2]),
        ("message.delivered", "agent_aaaaaaaaaaaa", [1]),
        ("message", None, []),
    ],
)
def test_only_what_is_wanted_is_kept(kind: str | None, agent: str | None, kept: list[int]) -> None:
    waiting = queue(kind=kind, agent=agent)
    waiting.add(
        [
            event(1),
            event(2, "message.read"),
            event(3, agent="agent_bbbbbbbbbbbb"),
            event(4, "messages.read", "agent_bbbbbbbbbbbb"),
        ]
    )

    assert seqs(waiting.take(0)) == kept


def test_what_is_not_wanted_takes_no_room() -> None:
    waiting = queue(kind="message.read", max_events=1)
    waiting.add([event(seq) for seq in range(1, 10)])
    waiting.add([event(10, "message.read")])

    assert seqs(waiting.take(0)) == [10]
