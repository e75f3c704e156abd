"""How often a key may name agents it cannot reach: absent ones and somebody else's, which look alike.

    found ──▶ costs nothing, and nobody is asked
    not found ──▶ a token of the key's budget ──none left──▶ 429 instead of the 404
                                                  └─ until there is one, others' agents are not even looked for

Without the last line a caller beyond its budget could still tell names apart: what exists would be answered, and what
does not would be refused. One's own agents are always found.
"""

from typing import Final

from contracts.errors import TooMany
from contracts.records import Principal
from gateway.token_leases import Leases

NOT_FOUND: Final = "agent_not_found"
"""The one code of all lookups in vain."""


class LookupBudget:
    """The budgets of all keys. Without leases nothing is limited."""

    def __init__(self, leases: Leases | None = None) -> None:
        self._leases = leases

    def admit(self, principal: Principal) -> None:
        """Raise `TooMany` (`lookup_budget_exhausted`) while this key is known to have nothing left; asks nobody."""
        if self._leases is not None and (wait_s := self._leases.wait_of(_name(principal))):
            raise _exhausted(wait_s)

    async def missed(self, principal: Principal) -> None:
        """Count a lookup in vain. Raises `TooMany` for one more than the key may make; passes when Redis is away."""
        if self._leases is None:
            return
        allowance = await self._leases.spend(_name(principal))
        if allowance is not None and not allowance.allowed:
            raise _exhausted(allowance.retry_after_s)


def _name(principal: Principal) -> str:
    return f"lookups:{principal.key_id}"


def _exhausted(wait_s: float) -> TooMany:
    message = "This key has named too many agents that it cannot reach."
    return TooMany("lookup_budget_exhausted", message, retry_after_s=max(0.001, round(wait_s, 3)))
