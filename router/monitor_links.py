"""Which monitors hold a connection to the broker, by what its system account tells of connections. Pure.

    opened ▶ a link counts for its monitor           closed ▶ it does not
    the last one closed ▶ the monitor may be gone    opened again meanwhile ▶ it is not: a renewal, or a short break

Whose a connection is, the broker has checked: a user that may publish on `hb.<monitor>` alone is that monitor. The user
for development may publish for every monitor; there the connection's own name is believed, and only while no connection
of a checked user speaks for that monitor.
"""

import base64
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from contracts.heartbeats import SUBJECT_PREFIX, monitor_of_connection
from contracts.ids import MONITOR_ID

EVERY_MONITOR: Final = f"{SUBJECT_PREFIX}>"
DEVELOPMENT_USER: Final = "edge"
"""Where users stand in the broker's configuration: the one of account EDGE."""
NO_DEATHS: Final = frozenset({"Server Shutdown", "Authentication Expired", "Credentials Revoked", "Kicked"})
"""The broker closed the connection of its own accord: that says nothing of what is behind it, which may well live."""

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One connection of a monitor. `is_checked`: the broker knows whose it is."""

    server_id: str
    client_id: int
    monitor_id: str
    is_checked: bool


def link_of(server_id: str, client: Facts, account: str) -> Link | None:
    """The link an advisory's `client`, or a row of a server's connections, tells of; None for all other connections.

    `account` is the monitors' account by its id or its name.
    """
    if account not in (client.get("acc"), client.get("account"), client.get("name_tag")):
        return None
    client_id = client.get("id", client.get("cid"))
    user = client.get("user", client.get("authorized_user"))
    monitor_id, is_checked = _monitor(client, user)
    if type(client_id) is not int or monitor_id is None or not MONITOR_ID.match(monitor_id):
        return None
    return Link(server_id=server_id, client_id=client_id, monitor_id=monitor_id, is_checked=is_checked)


def _monitor(client: Facts, user: object) -> tuple[str | None, bool]:
    named = monitor_of_connection(str(client.get("name", "")))
    jwt = client.get("jwt")
    if not isinstance(jwt, str):
        return (named if user == DEVELOPMENT_USER else None), False
    subjects = _may_publish(jwt)
    if EVERY_MONITOR in subjects:
        return named, False
    own = [subject.removeprefix(SUBJECT_PREFIX) for subject in subjects if subject.startswith(SUBJECT_PREFIX)]
    return (own[0] if len(own) == 1 else None), True


def _may_publish(jwt: str) -> Collection[str]:
    """What a user's JWT allows to publish; the broker has verified it."""
    try:
        claims = jwt.split(".")[1]
        allowed = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["nats"]["pub"]["allow"]
        return [subject for subject in allowed if isinstance(subject, str)]
    except (ValueError, KeyError, IndexError, TypeError):
        return ()


class Links:
    """The open links there are, as far as is known. Before `replace` nobody's last link is known to be gone."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, bool], set[tuple[str, int]]] = {}
        self._since_asked: list[tuple[Link, bool]] | None = None
        self._is_whole = False

    def __len__(self) -> int:
        return sum(len(held) for held in self._open.values())

    def opened(self, link: Link) -> None:
        self._note(link, is_open=True)

    def closed(self, link: Link, reason: str) -> bool:
        """Forget a link; True when its monitor has none left and may be gone."""
        self._note(link, is_open=False)
        return reason not in NO_DEATHS and self.is_gone(link)

    def is_gone(self, link: Link) -> bool:
        """Say whether the monitor of this link has none left that counts. A name alone keeps no checked user here."""
        counting = [True] if link.is_checked else [True, False]
        return self._is_whole and not any((link.monitor_id, is_checked) in self._open for is_checked in counting)

    def lost(self) -> None:
        """The way to the broker broke: what is open has to be asked for, and until then nobody is gone."""
        self._open.clear()
        self._since_asked = None
        self._is_whole = False

    def asked(self) -> None:
        """From now on the servers are being asked what is open."""
        self._since_asked = []

    def replace(self, links: Iterable[Link]) -> None:
        """Take what the servers said, corrected by what was told of while they were being asked.

        What was asked before the way to the broker broke is no answer any more.
        """
        changes, self._since_asked = self._since_asked, None
        if changes is None:
            return
        self._open.clear()
        for link in links:
            self._note(link, is_open=True)
        for link, is_open in changes:
            self._note(link, is_open=is_open)
        self._is_whole = True

    def _note(self, link: Link, *, is_open: bool) -> None:
        if self._since_asked is not None:
            self._since_asked.append((link, is_open))
        monitor, place = (link.monitor_id, link.is_checked), (link.server_id, link.client_id)
        if is_open:
            self._open.setdefault(monitor, set()).add(place)
            return
        held = self._open.get(monitor, set())
        held.discard(place)
        if not held:
            self._open.pop(monitor, None)
