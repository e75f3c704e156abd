"""Decisions that follow from an agent's record and a wish alone: each is taken once per record. Pure.

The directory's memory hands out the same record until it changes, or two seconds have passed; so the record itself is
the key, and a changed one is another.
"""

from datetime import datetime
from typing import Final

from contracts.records import Agent, Decision, Reachability, Wish
from contracts.words import Channel, FallbackMode
from router.decision import decide
from router.gates import Question

MAX_REMEMBERED: Final = 4_096
NOTHING_KNOWN: Final = Reachability()


class SettledDecisions:
    """`decide` with a memory, for wishes and agents to which `reachability_matters` does not apply."""

    def __init__(self) -> None:
        # The record is kept beside its identity, so that no other one can come to have it.
        self._known: dict[tuple[int, Channel | None, FallbackMode], tuple[Agent, Decision]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def decide(self, wish: Wish, recipient: Agent, now: datetime) -> Decision:
        key = (id(recipient), wish.channel, wish.fallback)
        known = self._known.get(key)
        if known is not None:
            return known[1]
        decision = decide(wish, Question(recipient=recipient, reach=NOTHING_KNOWN, now=now))
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[key] = (recipient, decision)
        return decision
