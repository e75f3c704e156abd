"""The choice among agents that fit a selector: who comes first, and the gate that says so. Pure.

    reachable first  who cannot be reached the way the sender wishes is chosen only where all are
    present first    online, stale, offline: what the sessions of each make of it
    least busy       the fewest executions that are open and not put off until later
    spread           then by a hash of message and agent: always the same for one message, evenly over many

What is not known counts as the last presence and as nothing to do; all are asked together, so it is so for all.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from contracts.records import Agent, GateResult, JsonObject
from contracts.words import Gate, PresenceWord, Reason, Verdict

MAX_CANDIDATES: Final = 200
"""How many agents one choice asks about; of more that fit, the hash says which."""
RUNNERS_UP_SHOWN: Final = 3
_OF_ONE: Final = frozenset({"rank", "presence", "open_executions", "runners_up", "recipients"})
_ORDER: Final = {PresenceWord.ONLINE: 0, PresenceWord.STALE: 1, PresenceWord.OFFLINE: 2, None: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An agent that fits, and what is known of it. None: nobody could be asked.

    `is_reachable` False: its own decision would refuse the message, or end it at once.
    """

    agent: Agent
    presence: PresenceWord | None
    open_executions: int | None
    is_reachable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What the sender asked: among which owner's agents, which of them, and how many."""

    project: str
    where: JsonObject
    pick: str

    @property
    def view(self) -> JsonObject:
        return {"project": self.project, "where": self.where, "pick": self.pick}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The candidates in order, and how many agents were looked at and fitted. `is_whole`: all there are."""

    candidates: tuple[Candidate, ...]
    considered: int
    matched: int
    is_whole: bool = True

    @property
    def reachable(self) -> tuple[Candidate, ...]:
        return tuple(each for each in self.candidates if each.is_reachable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """How a draft came by its recipient. `ulid` is the message's own where no Idempotency-Key gives it one.

    Without a `gate` the draft is there to recognise what it was accepted as earlier.
    """

    ask: Ask
    gate: GateResult | None = None
    ulid: str | None = None


def spread(ulid: str, agent_id: str) -> bytes:
    """The place of an agent in the order that is this message's own."""
    return hashlib.blake2b(f"{ulid} {agent_id}".encode(), digest_size=8).digest()


def ranked(candidates: Sequence[Candidate], ulid: str) -> tuple[Candidate, ...]:
    """The candidates, best first, for the message with this ulid; in whichever order they come."""
    return tuple(
        sorted(
            candidates,
            key=lambda each: (
                not each.is_reachable,
                _ORDER[each.presence],
                each.open_executions or 0,
                spread(ulid, each.agent.id),
            ),
        )
    )


def sampled(agents: Sequence[Agent], ulid: str) -> Sequence[Agent]:
    """As many as one choice may ask about, without favour to any name."""
    if len(agents) <= MAX_CANDIDATES:
        return agents
    return sorted(agents, key=lambda agent: spread(ulid, agent.id))[:MAX_CANDIDATES]


def selection_gate(ask: Ask, ranking: Ranking, rank: int, recipients: Sequence[str] = ()) -> GateResult:
    """The first answer in the trace of a message whose recipient was chosen: the one at `rank`, counted from 1.

    `recipients`: the ids of all who were chosen together, where the message has to remember them.
    """
    chosen = ranking.candidates[rank - 1]
    facts = {**selection_facts(ask, ranking), "rank": rank, **_standing(chosen)}
    if ask.pick == "one":
        facts["runners_up"] = [candidate_view(each) for each in ranking.reachable[1 : 1 + RUNNERS_UP_SHOWN]]
    if recipients:
        facts["recipients"] = list(recipients)
    return GateResult(gate=Gate.SELECTION, channel=None, verdict=Verdict.PASS, reason=Reason.CHOSEN, facts=facts)


def again_gate(first: GateResult, rank: int) -> GateResult:
    """The same for a message to the one at `rank`, sent later: `first` is the gate that remembers the recipients."""
    unknown = {"rank": rank, "presence": None, "open_executions": None}
    return replace(first, facts={**facts_of_all(first), **unknown})


def facts_of_all(gate: GateResult) -> JsonObject:
    """What a selection's gate says of the selection as a whole."""
    return {name: value for name, value in gate.facts.items() if name not in _OF_ONE}


def selection_facts(ask: Ask, ranking: Ranking) -> JsonObject:
    """What was asked, and how many were looked at, fitted, and could be reached."""
    facts = {
        **ask.view,
        "considered": ranking.considered,
        "matched": ranking.matched,
        "reachable": len(ranking.reachable),
    }
    return facts if ranking.is_whole else {**facts, "truncated": True}


def candidate_view(candidate: Candidate) -> JsonObject:
    agent = candidate.agent
    return {"agent_id": agent.id, "slug": agent.slug, **_standing(candidate)}


def _standing(candidate: Candidate) -> JsonObject:
    presence = candidate.presence
    return {"presence": presence and presence.value, "open_executions": candidate.open_executions}
