"""Every family of subjects in use, as data: what the broker carries is described, and checked, from this table.

Addresses are those of an installation without a prefix; `is_prefixed` says which ones a prefix is put before.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TOKENS: Final[Mapping[str, str]] = {
    "ulid": r"[0-9a-z]{26}",
    "agent": r"agent_[a-z0-9]+",
    "execution": r"exec_[0-9a-z]+",
    "echo": r"echo_[0-9a-z]+",
    "monitor": r"[a-z0-9-]+",
    "owner": r"[^.]+",
    "about": r"agent_[a-z0-9]+|_",
    "type": r"[a-z_]+\.[a-z_]+",
    "key": r".+",
}
"""What may stand for each variable token; `type` and `key` have dots of their own."""
_VARIABLE: Final = re.compile(r"\{([a-z]+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One family: `live.{agent}.{execution}`."""

    address: str
    is_prefixed: bool = True

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(_VARIABLE.findall(self.address))

    def matches(self, subject: str) -> bool:
        """Say whether a subject, without its installation's prefix, belongs to this family."""
        parts = _VARIABLE.split(self.address)
        grammar = "".join(f"(?:{TOKENS[part]})" if odd % 2 else re.escape(part) for odd, part in enumerate(parts))
        return re.fullmatch(grammar, subject) is not None


PATTERNS: Final[Mapping[str, Pattern]] = {
    "ledger": Pattern(address="led.{ulid}"),
    "moved": Pattern(address="moved.{ulid}"),
    "live": Pattern(address="live.{agent}.{execution}", is_prefixed=False),
    "echo": Pattern(address="live.{agent}.{echo}", is_prefixed=False),
    "bg": Pattern(address="bg.{agent}.{execution}", is_prefixed=False),
    "inbox": Pattern(address="inbox.{agent}.{execution}", is_prefixed=False),
    "webhook": Pattern(address="webhook.{agent}.{execution}", is_prefixed=False),
    "heartbeat": Pattern(address="hb.{monitor}", is_prefixed=False),
    "events": Pattern(address="ev.{owner}.{about}.{type}"),
    "directory_changed": Pattern(address="ctl.directory"),
    "session_attached": Pattern(address="ctl.attached"),
    "directory": Pattern(address="$KV.DIRECTORY.{key}"),
}


def families_of(subject: str) -> list[str]:
    """The names of the patterns a subject belongs to: exactly one for every subject of ours."""
    return [name for name, pattern in PATTERNS.items() if pattern.matches(subject)]
