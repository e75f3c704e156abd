"""What can go wrong, typed by who should do what next.

    PostroomError
    ├── Rejected                the caller's to fix; never retry unchanged            4xx
    │   ├── Malformed           the request is not what it claims to be               400, 413, 415
    │   ├── Unauthenticated     no key, or one that does not count                    401
    │   ├── Forbidden           a known caller without the right                      403
    │   ├── NotFound            absent, or somebody else's: the two look alike        404
    │   ├── Conflict            the state says no                                     409
    │   ├── Invalid             well-formed, and not acceptable                       422
    │   └── TooMany             slow down                                             429
    ├── Unavailable             ours or a neighbour's; retry after `retry_after_s`    503
    └── Stale                   a compare-and-set lost: reload and decide again       (never leaves the service)

Everything else is a bug: not caught in the middle, logged at the edge. A gate's "no" is a result, not an error.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class PostroomError(Exception):
    """The base of every error this product raises on purpose."""

    status: ClassVar[int] = 500

    def __init__(self, code: str, message: str, *, status: int | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.http_status = status or type(self).status
        self.facts: Mapping[str, Any] = facts


class Rejected(PostroomError):
    """The request cannot be done as it was made; the sender has to change it."""

    status = 400


class Malformed(Rejected):
    """The bytes are not a request we can read."""


class Unauthenticated(Rejected):
    """There is no key, or it does not count; which of the two is not told apart."""

    status = 401


class Forbidden(Rejected):
    """The caller is known and may not do this."""

    status = 403


class NotFound(Rejected):
    """There is no such thing, or it belongs to somebody else."""

    status = 404


class Conflict(Rejected):
    """The state of the thing does not allow this."""

    status = 409


class Invalid(Rejected):
    """The request is well-formed and its content is not acceptable."""

    status = 422


class TooMany(Rejected):
    """The caller is faster than allowed."""

    status = 429


class Unavailable(PostroomError):
    """We, or a server we need, cannot answer now; the same request may succeed after `retry_after_s` seconds."""

    status = 503

    def __init__(self, code: str, message: str, *, retry_after_s: float = 1.0, **facts: Any) -> None:
        super().__init__(code, message, **facts)
        self.retry_after_s = retry_after_s


class Stale(PostroomError):
    """The record moved on since it was read: nothing was written; read it again and decide again."""

    def __init__(self, record: str, expected_seq: int) -> None:
        super().__init__("stale", f"{record} is no longer at sequence {expected_seq}")
        self.record = record
        self.expected_seq = expected_seq


class IllegalEvent(PostroomError):
    """An event does not fit the state it was applied to: the ledger's order is broken, or a writer has a bug."""

    def __init__(self, state: str, event: str) -> None:
        super().__init__("illegal_event", f"{event} is not possible in state {state}")
