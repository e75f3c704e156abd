"""In context: who holds an execution says that its turn, or its program, has really taken the message."""

from datetime import datetime

from contracts.errors import Conflict
from contracts.events import Event, InContext
from contracts.records import Principal
from contracts.words import Channel, State
from router.desk import Desk, Standing
from router.execution import Execution
from router.fencing import is_under


class Contexts(Desk):
    """The holder's word, between its claim or lease and its outcome."""

    async def enter_context(self, execution_id: str, *, lease: int | None, principal: Principal) -> Standing:
        """Note that the message is in context; to say it again changes nothing.

        Raises `Conflict` with the code `check_holder` gives.
        """

        async def step(standing: Standing, now: datetime) -> Event | Standing:
            execution = standing.execution
            check_holder(execution, lease)
            if execution.in_context_at is not None:
                return standing
            return InContext(
                at=now,
                by=f"key:{principal.key_id}",
                execution=execution.number,
                lease=execution.lease.number if execution.lease else None,
            )

        return await self._change_execution(execution_id, principal, "execution.report", step)


def check_holder(execution: Execution, lease: int | None) -> None:
    """Raise `Conflict` unless an outcome under this lease would count as the holder's.

    `execution_closed` after the end, `stale_lease` for another lease than the present one, `not_claimed` while nobody
    holds the execution: of an inbox message the read mark says it.
    """
    held = execution.lease
    if not execution.is_open:
        raise Conflict("execution_closed", "This execution has ended.")
    if execution.state is State.CLAIMED and lease is None:
        return
    if held is not None and execution.channel is Channel.BG and is_under(held, lease):
        return
    if held is not None or lease is not None:
        raise Conflict("stale_lease", "This lease is not the present one.")
    raise Conflict("not_claimed", "Claim the execution before saying that it is in context.")
