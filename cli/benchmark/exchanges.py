"""Requests as they are sent, and the judgement of their answers: every status, and a share of the bodies in full."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

PARSED_SHARE: Final = 16
"""One body of so many is parsed and checked; parsing all of them would make the generator the thing measured."""


class Exchange(Protocol):
    """Numbered requests. `fault` is None when the answer is the expected one, else the kind of failure."""

    def render(self, number: int) -> bytes: ...

    def fault(self, number: int, status: int, body: bytes) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an answer must be: its status, the members it must have, and the values some of them must have."""

    status: int
    members: Sequence[str] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    lengths: Mapping[str, int] = field(default_factory=dict)
    parsed_share: int = PARSED_SHARE

    def fault(self, number: int, status: int, body: bytes) -> str | None:
        if status != self.status:
            return f"status {status}"
        return None if number % self.parsed_share else self._body_fault(body)

    def _body_fault(self, body: bytes) -> str | None:
        try:
            value = json.loads(body)
        except ValueError:
            return "body is not JSON"
        if not isinstance(value, dict):
            return "body is no object"
        for member in self.members:
            if not value.get(member):
                return f"body without {member}"
        for member, wanted in self.values.items():
            if value.get(member) != wanted:
                return f"body with another {member}"
        for member, wanted in self.lengths.items():
            if len(value.get(member) or ()) != wanted:
                return f"body with another number of {member}"
        return None


class SameRequest:
    """One request over and over; `unique_header` names a header that is different each time."""

    def __init__(self, head: bytes, rest: bytes, expected: Expected, unique_header: str | None, run: str) -> None:
        self._head = head
        self._rest = rest
        self._expected = expected
        self._unique = f"{unique_header}: {run}-".encode() if unique_header else None

    def render(self, number: int) -> bytes:
        if self._unique is None:
            return self._head + self._rest
        return b"%b%b%d\r\n%b" % (self._head, self._unique, number, self._rest)

    def fault(self, number: int, status: int, body: bytes) -> str | None:
        return self._expected.fault(number, status, body)


class ListedRequests:
    """As many requests as there are entries, each with its own path and body."""

    def __init__(self, requests: Sequence[bytes], expected: Expected) -> None:
        self._requests = requests
        self._expected = expected

    def render(self, number: int) -> bytes:
        return self._requests[number]

    def fault(self, number: int, status: int, body: bytes) -> str | None:
        return self._expected.fault(number, status, body)


class RequestsInTurn(ListedRequests):
    """The same few requests over and over, each in its turn."""

    def render(self, number: int) -> bytes:
        return self._requests[number % len(self._requests)]


def same_request(
    url: str,
    method: str,
    path: str,
    *,
    key: str,
    expected: Expected,
    body: Any = None,
    unique_header: str | None = None,
    run: str = "",
) -> SameRequest:
    content = b"" if body is None else json.dumps(body).encode()
    return SameRequest(_head(url, method, path, key), _rest(content), expected, unique_header, run)


def one_request(url: str, method: str, path: str, *, key: str, body: Any) -> bytes:
    return _head(url, method, path, key) + _rest(b"" if body is None else json.dumps(body).encode())


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a base URL."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


def _head(url: str, method: str, path: str, key: str) -> bytes:
    host, port = address_of(url)
    return f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {key}\r\n".encode()


def _rest(content: bytes) -> bytes:
    if not content:
        return b"\r\n"
    return b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
