"""Somebody else's agents: who may be addressed, and how much work it is to say no."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.directory import Grant, SlugEntry, agent_key, grant_key, slug_key
from contracts.errors import Invalid, NotFound
from contracts.records import Agent, Principal
from contracts.words import AgentStatus
from gateway.address import Address, ById, BySlug
from gateway.grants import Grants
from gateway.ports import Versioned, Write
from tests.builders import agent

EVE = Principal(owner="eve", key_id="k")
OPEN = agent(owner="max", slug="helper", external_addressable=True)
BY_ID = ById(OPEN.id)
BY_SLUG = BySlug("helper", "max")


class Shelf:
    """A directory store in memory that counts what it is asked."""

    def __init__(self, *, of: Agent = OPEN, granted: bool) -> None:
        self.asked = 0
        self.held: dict[str, Any] = {
            agent_key(of.id): of,
            slug_key(of.owner, of.slug): SlugEntry(agent_id=of.id),
        }
        if granted:
            at = datetime(2026, 1, 1, tzinfo=UTC)
            self.held[grant_key("max", "eve")] = Grant(giver="max", to="eve", created_at=at)

    async def get(self, key: str, kind: type[Any], *, fresh: bool = False) -> Versioned[Any] | None:
        self.asked += 1
        record = self.held.get(key)
        return Versioned(record=record, seq=1) if record is not None else None

    async def get_all(self, *_: Any) -> Any:
        raise NotImplementedError

    async def records(self, *_: Any) -> Any:
        raise NotImplementedError

    async def transact(self, writes: Sequence[Write]) -> None:
        raise NotImplementedError

    async def keys(self, pattern: str) -> list[str]:
        raise NotImplementedError


class Noon:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, 12, tzinfo=UTC)


async def refusal(shelf: Shelf, address: Address) -> tuple[str, str, int]:
    """The refusal, and how many lookups it took."""
    with pytest.raises(NotFound) as caught:
        await Grants(store=shelf, clock=Noon()).addressee(address, EVE)
    return caught.value.code, caught.value.message, shelf.asked


@pytest.mark.parametrize("address", [BY_ID, BY_SLUG])
async def test_a_grant_opens_an_addressable_agent_in_every_form(address: Address) -> None:
    found = await Grants(store=Shelf(granted=True), clock=Noon()).addressee(address, EVE)
    assert found == OPEN


@pytest.mark.parametrize(
    "closed",
    [
        replace(OPEN, external_addressable=False),
        replace(OPEN, status=AgentStatus.INACTIVE),
        replace(OPEN, deleted_at=datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize(("there", "absent"), [(BY_ID, ById("agent_absent000000")), (BY_SLUG, BySlug("no", "max"))])
async def test_with_a_grant_a_closed_agent_is_as_absent_as_none_at_all(
    closed: Agent, there: Address, absent: Address
) -> None:
    assert await refusal(Shelf(of=closed, granted=True), there) == await refusal(Shelf(granted=True), absent)


@pytest.mark.parametrize(("there", "absent"), [(BY_ID, ById("agent_absent000000")), (BY_SLUG, BySlug("no", "nobody"))])
async def test_without_a_grant_an_open_agent_is_as_absent_as_none_at_all(there: Address, absent: Address) -> None:
    assert await refusal(Shelf(granted=False), there) == await refusal(Shelf(granted=False), absent)


async def test_without_a_grant_no_name_is_looked_at() -> None:
    assert (await refusal(Shelf(granted=False), BY_SLUG))[2] == 1


async def test_a_grant_is_directed() -> None:
    shelf = Shelf(granted=False)
    shelf.held[grant_key("eve", "max")] = Grant(giver="eve", to="max", created_at=Noon().now())
    assert (await refusal(shelf, BY_SLUG))[0] == "agent_not_found"


async def test_nobody_needs_a_grant_of_his_own() -> None:
    with pytest.raises(Invalid) as caught:
        await Grants(store=Shelf(granted=False), clock=Noon()).give("eve", EVE)
    assert caught.value.code == "own_owner"
