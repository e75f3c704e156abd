"""How a server program of ours starts: settings from the environment, logs, an event loop, and an honest exit code."""

import gc
import sys
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
from pydantic import ValidationError

from contracts.errors import PostroomError
from infra.logs import configure_logs
from infra.settings import ProgramSettings, UnknownSettings, refuse_unknown_names

S = TypeVar("S", bound=ProgramSettings)

GC_THRESHOLD: Final = 20_000


def run_program(name: str, kind: type[S], serve: Callable[[S], Awaitable[None]]) -> None:
    """Run `serve` to its end. Exits with 2 for settings that cannot be, with 1 when a neighbour will not do."""
    try:
        refuse_unknown_names()
        settings = kind.from_environment()
    except (UnknownSettings, ValidationError) as error:
        sys.exit(_complaint(name, 2, str(error)))
    configure_logs(settings.log_level)
    try:
        anyio.run(serve, settings, backend_options={"use_uvloop": True})
    except (PostroomError, OSError, ValueError) as error:
        sys.exit(_complaint(name, 1, str(error)))


def spare_the_collector() -> None:
    """Keep what the start made out of every later collection, and collect after more requests than two or three.

    A full collection over modules and models takes tens of milliseconds, in the middle of somebody's request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 10, 10)


def _complaint(name: str, status: int, text: str) -> int:
    sys.stderr.write(f"postroom {name}: {text}\n")
    return status
