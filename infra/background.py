"""A loop that runs beside a block of code and ends with it."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup


@asynccontextmanager
async def beside(*loops: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[TaskGroup]:
    """Run `loops` while the block runs, and cancel them at its end. A loop that fails cancels the block.

    The block's own error leaves as it is: a task group would wrap it, and `except Unavailable` would miss it.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        for loop in loops:
            tasks.start_soon(loop)
        try:
            yield tasks
        except Exception as error:  # noqa: BLE001 - raised again below, outside the group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
