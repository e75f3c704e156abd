"""The open guards of an owner: which there are, and an operator's word that they may close."""

from dataclasses import dataclass

from contracts.clock import Clock
from contracts.errors import NotFound
from contracts.records import Agent, Principal
from gateway.address import parse_address
from gateway.auth import require
from gateway.directory import Directory
from gateway.grants import Grants
from gateway.ports import GuardBook, OpenGuard
from gateway.schemas_guards import GuardReset


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a guard must name to be meant; None: whatever it names."""

    sender: str | None
    recipient: str | None
    thread: str | None

    def means(self, guard: OpenGuard) -> bool:
        return (
            self.sender in (None, guard.sender)
            and self.recipient in (None, guard.recipient)
            and self.thread in (None, guard.thread)
        )


class GuardDesk:
    """Lists and resets. A guard belongs to the owner of the sending agent."""

    def __init__(self, *, book: GuardBook, directory: Directory, grants: Grants, clock: Clock) -> None:
        self._book = book
        self._directory = directory
        self._grants = grants
        self._clock = clock

    async def open_of(self, caller: Principal, owner: str | None) -> list[OpenGuard]:
        """Raises `Forbidden` for another owner's, without an admin key."""
        owner = owner or caller.owner
        require(caller, "guard.read", owner)
        return await self._book.open_of(owner, self._clock.now())

    async def reset(self, wanted: GuardReset, caller: Principal) -> int:
        """Close the open guards that name all of what is wanted; how many there were.

        Raises `NotFound` for an agent the caller cannot act for, or cannot address.
        """
        owner, sender, recipient = caller.owner, None, None
        if wanted.sender is not None:
            agent = await self._directory.find(wanted.sender, caller, action="guard.reset", field="sender")
            owner, sender = agent.owner, agent.id
        if wanted.recipient is not None:
            recipient = (await self._addressee(wanted.recipient, caller)).id
        meant = _Wanted(sender, recipient, wanted.thread)
        found = [each for each in await self._book.open_of(owner, self._clock.now()) if meant.means(each)]
        await self._book.reset(owner, found)
        return len(found)

    async def _addressee(self, reference: str, caller: Principal) -> Agent:
        address = parse_address(reference, field="recipient")
        try:
            return await self._directory.resolve(address, caller, action="guard.reset")
        except NotFound:
            return await self._grants.addressee(address, caller)
