"""How often a receiver wants to be woken: for each message, or for several together. Pure.

An agent says so in its metadata: `"wake": {"mode": "coalesce", "window_ms": 2000, "max_batch": 20}`.
"""

from dataclasses import dataclass
from typing import Any, Final

from contracts.errors import Invalid
from contracts.records import JsonObject

MAX_WINDOW_MS: Final = 60_000
MAX_BATCH: Final = 100
DEFAULT_WINDOW_MS: Final = 1_000
_FIELDS: Final = frozenset({"mode", "window_ms", "max_batch"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """`window_s`: how long the first message waits for others, 0 if it does not. `max_batch`: how many go at once."""

    window_s: float = 0.0
    max_batch: int = MAX_BATCH

    @property
    def is_coalesced(self) -> bool:
        return self.window_s > 0


def wake_of(metadata: JsonObject) -> Wake:
    """The policy in an agent's metadata. What is not one (it was stored unchecked) counts as none."""
    try:
        return read_wake(metadata.get("wake"))
    except Invalid:
        return Wake()


def read_wake(value: Any) -> Wake:
    """Raises `Invalid` for anything but a policy; None is one: each message by itself."""
    if value is None:
        return Wake()
    if not isinstance(value, dict) or not value.keys() <= _FIELDS:
        raise _invalid("wake is an object of mode, window_ms and max_batch.")
    if value.get("mode") not in ("each", "coalesce"):
        raise _invalid("wake.mode is each or coalesce.")
    window_ms = _number(value, "window_ms", DEFAULT_WINDOW_MS, MAX_WINDOW_MS)
    max_batch = _number(value, "max_batch", MAX_BATCH, MAX_BATCH)
    return Wake(window_s=window_ms / 1000, max_batch=max_batch) if value["mode"] == "coalesce" else Wake()


def _number(value: dict[str, Any], name: str, default: int, most: int) -> int:
    number = value.get(name, default)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
        raise _invalid(f"wake.{name} is a whole number from 1 to {most}.")
    return number


def _invalid(message: str) -> Invalid:
    return Invalid("invalid_wake", message, field="metadata")
