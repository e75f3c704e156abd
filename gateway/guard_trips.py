"""Guards that trip: the first refusal is told to both owners, the many that may follow it are not.

a budget     trips when it is used up and opens, which is once until a message was let through again
hops, rings, automatic replies
             trip by their first refusal in a thread within an hour: what is refused over and over is told once
"""

from collections.abc import Mapping
from typing import Final

import structlog

from contracts.errors import Rejected, Unavailable
from contracts.words import Gate
from gateway.notices import Notices
from gateway.ports import GuardBook
from router.explain import View
from router.service import Draft

TOLD_ONCE_WITHIN_S: Final = 3_600
CHAIN_GUARDS: Final = frozenset({Gate.HOP_LIMIT.value, Gate.CYCLE.value, Gate.AUTO_REPLY.value})
log = structlog.get_logger()


class GuardTrips:
    """Looks at refusals and at nothing else: a message that is accepted never comes here."""

    def __init__(self, *, book: GuardBook, notices: Notices) -> None:
        self._book = book
        self._notices = notices

    async def tell(self, draft: Draft, refusal: Rejected) -> None:
        """Tell both owners if this refusal is a guard's trip."""
        answer = _last_answer(refusal.facts)
        if answer is not None and await self._is_trip(draft, answer):
            await self._notices.guard(draft, answer)

    async def _is_trip(self, draft: Draft, answer: View) -> bool:
        if answer["gate"] not in CHAIN_GUARDS:
            return bool(answer["facts"].get("opened"))
        thread = draft.context.thread_id or ""
        try:
            return await self._book.is_first(
                draft.sender.owner, Gate(answer["gate"]), thread, within_s=TOLD_ONCE_WITHIN_S
            )
        except Unavailable as error:
            # Untold rather than told without end: a loop that goes on is refused again when the store is back.
            log.warning("trip_untold", gate=answer["gate"], thread_id=thread, code=error.code)
            return False


def _last_answer(facts: Mapping[str, object]) -> View | None:
    """The gate that refused: the last of a refusal's trace."""
    trace = facts.get("trace")
    return trace[-1] if isinstance(trace, list) and trace else None
