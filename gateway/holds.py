"""The answers being held: each for a time at most, none for a client that left, and none when the program ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.types import Receive


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
    async def at_most(self, seconds: float, receive: Receive) -> AsyncIterator[None]:
        """Leave the block after `seconds`, when the client hangs up, or when all are released; whichever is first."""
        failure: Exception | None = None
        with anyio.move_on_after(0 if self._released else seconds) as scope:
            self._scopes.add(scope)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_cancel_when_gone, scope, receive)
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
