"""The agenda: which messages need somebody to act, and when. Pure; a memory of the ledger and nothing more.

Every router follows the ledger and keeps its own. It forgets a message when it ends, and a router that starts reads the
ledger again from before the oldest open one. So a deadline lives exactly as long as the message it belongs to.
"""

import heapq
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from contracts.errors import IllegalEvent
from contracts.events import Accepted, Replayed, Stored
from contracts.words import Channel, State
from router.execution import Execution, apply, begin, begin_again

RECHECK: Final = timedelta(seconds=30)
"""How often a message that waits for a session is looked at again, should the word of an attach be lost."""

SLACK: Final = 1_000
"""How many outdated instants the heaps may hold beyond the open messages themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One open message: where it stands, without its texts."""

    ulid: str
    agent_id: str
    accept_seq: int
    accepted_at: datetime
    execution: Execution
    wake_at: datetime
    seq: int
    """The last event of the ledger taken in, so that none is taken in twice."""

    @property
    def is_webhook(self) -> bool:
        return self.execution.state is State.QUEUED and self.execution.channel is Channel.WEBHOOK


class Agenda:
    """Open messages by the instant of their next deadline."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._wakes: list[tuple[datetime, str]] = []
        self._accepted: list[tuple[int, str]] = []
        self._waiting: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, ulid: str, stored: Stored, now: datetime) -> None:
        """Follow one event of the ledger; those of messages that ended or began before the reading are passed over."""
        event = stored.event
        if isinstance(event, Accepted):
            self._open(ulid, event.message.agent_id, stored, begin(event), now)
        elif isinstance(event, Replayed):
            self._open(ulid, event.agent_id, stored, begin_again(event), now)
        elif (known := self._entries.get(ulid)) is not None and stored.seq > known.seq:
            self.correct(ulid, _applied(known.execution, stored), now, seq=stored.seq)

    def correct(self, ulid: str, execution: Execution, now: datetime, *, seq: int) -> None:
        """Take over where an open message stands, from its next event or folded from the ledger up to `seq`.

        What is older than the events taken in already is passed over.
        """
        entry = self._entries.get(ulid)
        if entry is None or seq < entry.seq:
            return
        if not execution.is_open:
            self._forget(entry)
            return
        slim = replace(execution, trace=())
        self._keep(replace(entry, execution=slim, wake_at=_wake_at(slim, now), seq=seq))

    def due(self, now: datetime, limit: int = 1_000) -> list[Entry]:
        """Take the entries whose time has come, the earliest first.

        A taken entry comes again after `RECHECK` unless an event of the ledger moves it before: whoever took it may
        have failed.
        """
        taken: list[Entry] = []
        while self._wakes and self._wakes[0][0] < now and len(taken) < limit:
            wake_at, ulid = heapq.heappop(self._wakes)
            entry = self._entries.get(ulid)
            if entry is None or entry.wake_at != wake_at:
                continue
            taken.append(entry)
            self._keep(replace(entry, wake_at=now + RECHECK))
        return taken

    def has_due(self, now: datetime) -> bool:
        """Whether something may be due; cheap, and now and then mistaken."""
        return bool(self._wakes) and self._wakes[0][0] < now

    def postpone(self, ulid: str, until: datetime) -> None:
        """Look at a message that was taken again at `until`, or when its time is up: it could not be dealt with now."""
        if (entry := self._entries.get(ulid)) is not None:
            # What had expired when it was taken has no better instant than the one it comes again at by itself.
            latest = max(entry.wake_at, entry.execution.expires_at)
            self._keep(replace(entry, wake_at=min(until, latest)))

    def waiting_for(self, agent_id: str) -> tuple[str, ...]:
        """The ulids of the messages that wait for a live session of this agent, in the order they began to."""
        return tuple(self._waiting.get(agent_id, ()))

    def oldest(self) -> Entry | None:
        """The open message accepted, or replayed, first: nothing before it has to be read again."""
        while self._accepted:
            seq, ulid = self._accepted[0]
            entry = self._entries.get(ulid)
            # The acceptance of a message that ended and was replayed since says nothing of its new execution.
            if entry is not None and entry.accept_seq == seq:
                return entry
            heapq.heappop(self._accepted)
        return None

    def _open(self, ulid: str, agent_id: str, stored: Stored, begun: Execution, now: datetime) -> None:
        execution = replace(begun, trace=())
        if not execution.is_open or ulid in self._entries:
            return
        entry = Entry(
            ulid=ulid,
            agent_id=agent_id,
            accept_seq=stored.seq,
            accepted_at=stored.event.at,
            execution=execution,
            wake_at=_wake_at(execution, now),
            seq=stored.seq,
        )
        heapq.heappush(self._accepted, (stored.seq, ulid))
        self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        self._entries[entry.ulid] = entry
        heapq.heappush(self._wakes, (entry.wake_at, entry.ulid))
        if entry.execution.state is State.WAITING:
            self._waiting.setdefault(entry.agent_id, {})[entry.ulid] = None
        else:
            self._no_longer_waits(entry)
        self._compact()

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.ulid]
        self._no_longer_waits(entry)
        self._compact()

    def _compact(self) -> None:
        """Drop what is outdated from the heaps once it is most of them.

        The instants of a message that ended soon may lie a month ahead; they would stay until then.
        """
        most = 2 * len(self._entries) + SLACK
        if len(self._wakes) > most:
            self._wakes = [(each.wake_at, each.ulid) for each in self._entries.values()]
            heapq.heapify(self._wakes)
        if len(self._accepted) > most:
            self._accepted = [(each.accept_seq, each.ulid) for each in self._entries.values()]
            heapq.heapify(self._accepted)

    def _no_longer_waits(self, entry: Entry) -> None:
        if (waiting := self._waiting.get(entry.agent_id)) is None:
            return
        waiting.pop(entry.ulid, None)
        if not waiting:
            del self._waiting[entry.agent_id]


def _wake_at(execution: Execution, now: datetime) -> datetime:
    due_at = execution.due_at or now
    return min(due_at, now + RECHECK) if execution.state is State.WAITING else due_at


def _applied(execution: Execution, stored: Stored) -> Execution:
    """An event read twice around a restart of the reading does not fit any more, and has been taken in already."""
    try:
        return apply(execution, stored.event)
    except IllegalEvent:
        return execution
