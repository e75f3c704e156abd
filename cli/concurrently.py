"""Steps that run at the same time, of which the first failure is raised alone."""

from collections.abc import Awaitable, Callable

import anyio


async def concurrently(*steps: Callable[[], Awaitable[object]]) -> None:
    """Run `steps` together; the first that fails cancels the others, and its error leaves as it is, in no group."""
    failures: list[Exception] = []

    async def run(step: Callable[[], Awaitable[object]]) -> None:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - raised again below, outside the group
            failures.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for step in steps:
            tasks.start_soon(run, step)
    if failures:
        raise failures[0]
