"""The answers being held: for a time at most, for nobody who left or lost his key, and none when the program ends."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import anyio
from starlette.types import Receive

from contracts.errors import Unauthenticated, Unavailable

CHECK_EVERY_S: Final = 2.0
Check: TypeAlias = Callable[[], Awaitable[object]]


class Holds:
    """All held answers of one gateway."""

    def __init__(self) -> None:
        self._scopes: set[anyio.CancelScope] = set()
        self._released = False

    @property
    def count(self) -> int:
        """How many answers are being held."""
        return len(self._scopes)

    @asynccontextmanager
    async def at_most(self, seconds: float, receive: Receive, check: Check | None = None) -> AsyncIterator[None]:
        """Leave the block after `seconds`, when the client hangs up, or when all are released; whichever is first.

        With a `check`, also soon after it begins to raise `Unauthenticated`: the caller's key counts no more.
        """
        failure: Exception | None = None
        with anyio.move_on_after(0 if self._released else seconds) as scope:
            self._scopes.add(scope)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_cancel_when_gone, scope, receive)
                    if check is not None:
                        tasks.start_soon(_cancel_when_refused, scope, check)
                    try:
                        yield
                    except Exception as error:  # noqa: BLE001 - raised again below, out of the group that would wrap it
                        failure = error
                    tasks.cancel_scope.cancel()
            finally:
                self._scopes.discard(scope)
        if failure is not None:
            raise failure

    def release(self) -> None:
        """Let every held answer go as it stands, and hold none from now on."""
        self._released = True
        for scope in self._scopes:
            scope.cancel()


async def _cancel_when_gone(scope: anyio.CancelScope, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _cancel_when_refused(scope: anyio.CancelScope, check: Check) -> None:
    """Also when nobody can say any more: whoever asks again is told why."""
    try:
        while True:
            await anyio.sleep(CHECK_EVERY_S)
            await check()
    except (Unauthenticated, Unavailable):
        scope.cancel()
