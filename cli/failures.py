"""Why a command ends with something else than 0, in words for the person who typed it.

Failure         1    the thing asked for failed
├── Misused     2    the command line itself is wrong
├── Unreachable 3    no server answers
└── Refused     1    the gateway said no: printed as `code: message`
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class Failure(Exception):
    """What was asked for did not come about."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Misused(Failure):
    """The command was called in a way that means nothing."""

    exit_code = 2


class Unreachable(Failure):
    """No server answers where one was expected."""

    exit_code = 3


class Refused(Failure):
    """The gateway answered with an error; `facts` is everything it said about it."""

    def __init__(self, status: int, code: str, message: str, facts: Mapping[str, Any]) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.facts = facts
