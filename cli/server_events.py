"""Server-sent events as commands hear them: read by the standard's rules, and followed through every disconnect."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from cli.api import Api
from cli.failures import Refused, Unreachable

LONGEST_WAIT_S: Final = 30.0
BUSY: Final = (429, 503)
"""Refusals that pass."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event. `id` is the last id the stream has said, "" before the first."""

    id: str
    kind: str
    data: str


class EventReader:
    """Bytes in, events out, as the HTML standard has it ("Interpreting an event stream").

    Lines end with LF, CR or CRLF and nothing else: JSON texts may hold what other readers of lines break at.
    """

    def __init__(self) -> None:
        self.last_id = ""
        self.retry_s: float | None = None
        self._rest = b""
        self._id = ""
        self._kind = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """The events that are complete now."""
        # A CR at the end may be half of a CRLF: it waits for what follows.
        text = self._rest + chunk
        held = b"\r" if text.endswith(b"\r") else b""
        lines = text[: len(text) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + held
        for line in lines:
            if (event := self._take(line.decode("utf-8", "replace"))) is not None:
                yield event

    def start_over(self) -> None:
        """Another connection follows: what was incomplete will come again."""
        self._rest, self._id, self._kind, self._data = b"", self.last_id, "", []

    def _take(self, line: str) -> ServerEvent | None:
        if not line:
            return self._complete()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_s = int(value) / 1000
        return None

    def _complete(self) -> ServerEvent | None:
        self.last_id = self._id
        data, kind = self._data, self._kind or "message"
        self._kind, self._data = "", []
        return ServerEvent(id=self.last_id, kind=kind, data="\n".join(data)) if data else None


def follow(api: Api, path: str, *, sleep: Callable[[float], None] = time.sleep, **query: Any) -> Iterator[ServerEvent]:
    """The events of a stream for as long as one likes, each once: after a disconnect it goes on behind the last.

    Raises what the first connection fails with; later only a refusal that will not pass, such as a revoked key.
    """
    reader, failures, is_new = EventReader(), 0, True
    while True:
        try:
            with api.stream(path, query=query, last_event_id=reader.last_id) as chunks:
                is_new, failures = False, 0
                for chunk in chunks:
                    yield from reader.feed(chunk)
            least_s = 0.0
        except Unreachable:
            if is_new:
                raise
            least_s = 0.0
        except Refused as refusal:
            if is_new or refusal.status not in BUSY:
                raise
            least_s = float(refusal.facts.get("retry_after_s") or 0)
        reader.start_over()
        sleep(max(least_s, min(LONGEST_WAIT_S, (reader.retry_s or 1.0) * 2**failures)))
        failures += 1
