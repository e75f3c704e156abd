"""The filters that inbox and sent share: with whom, in which thread, since when, how urgent."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Final

from fastapi import Depends

from contracts.errors import Invalid
from contracts.ids import MESSAGE_ID
from contracts.records import Principal
from contracts.words import State
from gateway.address import ById, parse_address
from gateway.directory import Directory
from gateway.instants import parse_instant
from gateway.peer_views import STATES_OF
from gateway.ports import Query
from gateway.routing import words

PRIORITIES: Final = {str(number): number for number in range(1, 6)}
SENT_STATES: Final[Mapping[str, tuple[State, ...]]] = {
    **{state.value: (state,) for state in State},
    **STATES_OF,
}
"""The states by name, and the peer's words for several of them; a word that both have has the peer's meaning."""
INBOX_STATES: Final[Mapping[str, tuple[State, ...]]] = {
    "queued": (State.IN_INBOX,),
    "delivered": (State.INBOX_DELIVERED,),
    "read": (State.INBOX_READ,),
    "acked": STATES_OF["acked"],
    "expired": STATES_OF["expired"],
    "failed": STATES_OF["failed"],
    # What CueAPI's clients may ask for as well; in an inbox nothing is ever claimed, leased or tried again.
    "claimed": (State.CLAIMED,),
    "delivering": (State.LEASED,),
    "retry_ready": (State.QUEUED,),
}
"""The words for where a message stands in an inbox."""


@dataclass(frozen=True, slots=True)
class Filters:
    """As they were asked for."""

    counterpart: str | None
    thread_id: str | None
    since: str | None
    priority: str | None

    @property
    def scope(self) -> str:
        """What a cursor is bound to."""
        return f"{self.counterpart}:{self.thread_id}:{self.since}:{self.priority}"

    async def applied(self, query: Query, directory: Directory, caller: Principal) -> Query:
        """The question with these filters. Raises `Invalid` for what cannot be, `NotFound` for an unknown name."""
        if self == NO_FILTERS:
            return query
        return replace(
            query,
            counterpart=await self._counterpart(directory, caller),
            thread=self._thread(),
            since=self._since(),
            priorities=words(self.priority, PRIORITIES, "priority"),
        )

    async def _counterpart(self, directory: Directory, caller: Principal) -> str | None:
        if self.counterpart is None:
            return None
        address = parse_address(self.counterpart, field="counterpart")
        # An id is taken as it is: it filters one's own messages, whoever's agent it is.
        if isinstance(address, ById):
            return address.agent_id
        return (await directory.resolve(address, caller, action="agent.name")).id

    def _thread(self) -> str | None:
        if self.thread_id is not None and not MESSAGE_ID.match(self.thread_id):
            raise Invalid("invalid_format", "A thread's id is that of its first message.", field="thread_id")
        return self.thread_id

    def _since(self) -> datetime | None:
        at = None if self.since is None else parse_instant(self.since)
        if at is None and self.since is not None:
            raise Invalid("invalid_format", "Write an instant as RFC 3339, with its offset.", field="since")
        return at


NO_FILTERS: Final = Filters(None, None, None, None)


def read_filters(
    counterpart: str | None = None,
    thread_id: str | None = None,
    since: str | None = None,
    priority: str | None = None,
) -> Filters:
    return Filters(counterpart, thread_id, since, priority)


def sent_states(text: str | None) -> tuple[State, ...]:
    """The states a comma list names. Raises `Invalid` for a word there is not."""
    return _states(text, SENT_STATES)


def inbox_states(text: str | None) -> tuple[State, ...]:
    """The same of an inbox."""
    return _states(text, INBOX_STATES)


def _states(text: str | None, known: Mapping[str, tuple[State, ...]]) -> tuple[State, ...]:
    named: tuple[tuple[State, ...], ...] = words(text, dict(known), "state")
    return tuple(dict.fromkeys(state for states in named for state in states))


Asked = Annotated[Filters, Depends(read_filters)]
