"""A host of its own for tests: a network namespace at the end of one cable, which can be pulled and put back."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

NEEDS = (
    "network namespaces cannot be made here: it takes Linux, the program `ip`, and the rights of root over the network"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The namespace. `us` is our address at this end of the cable."""

    name: str
    cable: str
    us: str

    @property
    def command(self) -> list[str]:
        """What a program is started with to run there."""
        return ["ip", "netns", "exec", self.name]

    def pull(self) -> None:
        """From now on nothing passes, and nobody is told."""
        _ip("link", "set", self.cable, "down")

    def put_back(self) -> None:
        _ip("link", "set", self.cable, "up")


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A monitor's host that is not ours: the command that starts programs there, and how it sees us."""

    command: Sequence[str]
    gateway_url: str
    nats_url: str


@cache
def can_be_made() -> bool:
    if shutil.which("ip") is None or not hasattr(os, "geteuid"):
        return False
    try:
        with host():
            return True
    except subprocess.CalledProcessError:
        return False


@contextmanager
def host() -> Iterator[Host]:
    """Made, cabled and, at the end, gone. Raises `CalledProcessError` where that is not allowed."""
    name = f"pr-{secrets.token_hex(4)}"
    third = secrets.randbelow(254) + 1
    us, them = f"10.213.{third}.1", f"10.213.{third}.2"
    made = Host(name=name, cable=f"{name}-a", us=us)
    _ip("netns", "add", name)
    try:
        _ip("link", "add", made.cable, "type", "veth", "peer", "name", f"{name}-b", "netns", name)
        _ip("addr", "add", f"{us}/30", "dev", made.cable)
        made.put_back()
        for words in (("addr", "add", f"{them}/30", "dev", f"{name}-b"), ("link", "set", f"{name}-b", "up")):
            _ip("-n", name, *words)
        _ip("-n", name, "link", "set", "lo", "up")
        yield made
    finally:
        # The cable goes with the end of it that lies in the namespace, once nobody is left in there.
        subprocess.run(["ip", "link", "del", made.cable], check=False, capture_output=True)
        _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
