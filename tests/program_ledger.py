"""The ledger as an auditor reads it: straight from the broker, past every program."""

from collections import Counter
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from contracts.events import History, Stored
from contracts.subjects import Names
from infra.ledger_tail import StreamTail
from infra.nats_connection import Broker
from router.audit import Finding, audit
from router.execution import fold
from tests.program_caller import Json

GRACE: Final = timedelta(seconds=5)
"""How long after its deadline a message may still be open: the programs may have just come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Every message's history, by ulid."""

    histories: dict[str, History]

    def of(self, agent: Json) -> dict[str, History]:
        """The histories of one agent's messages."""
        return {ulid: history for ulid, history in self.histories.items() if history.message.agent_id == agent["id"]}

    def states(self, agent: Json) -> Counter[str]:
        """How many of an agent's messages are in each state."""
        return Counter(fold(history).state.value for history in self.of(agent).values())

    def findings(self) -> list[Finding]:
        """What does not hold together: illegal orders, double winners, forgotten deadlines."""
        return list(audit(self.histories.values(), datetime.now(UTC), grace=GRACE).findings)

    def unknown(self, acknowledged: Iterable[Json]) -> list[str]:
        """Messages that were acknowledged and are not here."""
        return [each["id"] for each in acknowledged if each["id"].removeprefix("msg_") not in self.histories]


async def read_books(nats_url: str) -> Books:
    """Read the ledger from its first record to its last."""
    found: dict[str, list[Stored]] = {}
    async with Broker.open(nats_url, name="auditor") as broker:
        tail = StreamTail(broker, Names())
        goal = await tail.last_seq()
        async with aclosing(tail.follow(0)) as batches:
            seen = 0
            while seen < goal:
                for moved in await anext(batches):
                    found.setdefault(moved.ulid, []).append(moved.stored)
                    seen = moved.stored.seq
    return Books(histories={ulid: History(ulid=ulid, events=tuple(events)) for ulid, events in found.items()})
