"""Selectors: agents named by what they are instead of by name. Pure.

    kind, name, status, service_account_id, specialization      what the agent's record says
    tools, delivery_capabilities                                one of those it lists
    capabilities.<path>                                         what its capability map holds there

A selector fits an agent when each of its terms does. A term fits when what the agent says equals one of the term's
values as JSON values do: 1 is 1.0, and neither is true or "1". Where the agent says a list, one of its items is enough;
null is said by an agent that says nothing there. An object equals nothing: name a path inside it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from contracts.records import Agent

Scalar: TypeAlias = str | int | float | bool | None

PATH_BEGINS: Final = "capabilities."
MAX_TERMS: Final = 10
MAX_VALUES: Final = 20
MAX_KEY: Final = 200
MAX_DEPTH: Final = 8
KEYS: Final = (
    "kind",
    "name",
    "status",
    "service_account_id",
    "specialization",
    "tools",
    "delivery_capabilities",
)
"""What can be asked besides paths into the capability map."""


@dataclass(frozen=True, slots=True)
class Term:
    """One question, and the values each of which answers it."""

    key: str
    values: tuple[Scalar, ...]

    def fits(self, agent: Agent) -> bool:
        return any(same(said, value) for said in said_by(agent, self.key) for value in self.values)


@dataclass(frozen=True, slots=True)
class Selector:
    """Fits the agents that fit every term; without terms it fits all."""

    terms: tuple[Term, ...] = ()

    def fits(self, agent: Agent) -> bool:
        return all(term.fits(agent) for term in self.terms)


EVERYBODY: Final = Selector()


def selector_of(where: Mapping[str, Any]) -> Selector:
    """The selector a checked `where` says: values are scalars, or lists of which any will do."""
    return Selector(
        tuple(Term(key, tuple(value) if isinstance(value, list) else (value,)) for key, value in where.items())
    )


def selector_of_texts(pairs: Iterable[tuple[str, str]]) -> Selector:
    """The selector that texts of a query or a command line say; a key that is named again adds to its values."""
    found: dict[str, tuple[Scalar, ...]] = {}
    for key, text in pairs:
        found[key] = found.get(key, ()) + values_of_text(key, text)
    return Selector(tuple(Term(key, values) for key, values in found.items()))


def values_of_text(key: str, text: str) -> tuple[Scalar, ...]:
    """What a text may stand for: itself, and below `capabilities.` also the number, truth value or null it spells."""
    if not key.startswith(PATH_BEGINS):
        return (text,)
    try:
        value = json.loads(text, parse_constant=lambda _: text)
    except (ValueError, RecursionError):
        return (text,)
    is_scalar = value is None or isinstance(value, bool | int | float)
    return (text, value) if is_scalar else (text,)


def path_of(key: str) -> tuple[str, ...] | None:
    """The path into the capability map that a key names; None when it names none, or one that is too deep."""
    if len(key) > MAX_KEY or not key.startswith(PATH_BEGINS):
        return None
    path = tuple(key.removeprefix(PATH_BEGINS).split("."))
    return path if all(path) and len(path) <= MAX_DEPTH else None


def same(said: Any, wanted: Scalar) -> bool:
    """Say whether two JSON values are the same one; a truth value is no number."""
    if isinstance(said, bool) or isinstance(wanted, bool):
        return said is wanted
    return bool(said == wanted)


def said_by(agent: Agent, key: str) -> Iterator[Any]:
    """What the agent says there: one value, or each of a list's."""
    value = _field(agent, key)
    if isinstance(value, list | tuple):
        yield from value
    else:
        yield value


def _field(agent: Agent, key: str) -> Any:
    match key:
        case "kind" | "service_account_id":
            return getattr(agent, key)
        case "name":
            return agent.slug
        case "status":
            return agent.status.value
        case "specialization" | "tools":
            return getattr(agent.profile, key)
        case "delivery_capabilities":
            return [channel.value for channel in agent.delivery_capabilities]
        case _:
            return _capability(agent.capabilities, path_of(key))


def _capability(value: Any, path: tuple[str, ...] | None) -> Any:
    if path is None:
        return None
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value
