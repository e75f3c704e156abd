"""Evidence and verification: what an outcome is worth may still change after it was recorded; the outcome may not."""

from datetime import datetime

from contracts.errors import Conflict
from contracts.events import Event, EvidenceAdded, VerificationChanged
from contracts.records import JsonObject, Outcome, Principal
from contracts.words import OutcomeState, State
from router.desk import Desk, Standing
from router.execution import Execution
from router.verification import VERIFIABLE, verified, worth


class Evidence(Desk):
    """The receiver adds evidence; whoever verifies says what it is worth."""

    async def add_evidence(self, execution_id: str, evidence: JsonObject, principal: Principal) -> Standing:
        """Add to what is there, and weigh the outcome again. Raises `Conflict` (`no_outcome`)."""

        async def step(standing: Standing, now: datetime) -> Event:
            execution, mode = standing.execution, standing.history.message.wish.verification
            outcome = _outcome_of(execution)
            together = {**execution.evidence, **evidence}
            weighed = worth(mode, success=outcome.success, evidence=together)
            # Only what a rule has refused can be mended by evidence; what somebody has said stays said.
            mended = weighed is OutcomeState.VERIFIED_SUCCESS and not execution.judged
            return EvidenceAdded(
                at=now,
                by=f"key:{principal.key_id}",
                execution=execution.number,
                evidence=evidence,
                outcome_state=weighed if mended else execution.outcome_state or weighed,
            )

        return await self._change_execution(execution_id, principal, "execution.report", step)

    async def verify(self, execution_id: str, *, valid: bool, reason: str | None, principal: Principal) -> Standing:
        """Say that the outcome holds, or does not. Raises `Conflict` (`no_outcome`, `invalid_state`)."""
        return await self._set(execution_id, verified(valid=valid), reason, principal)

    async def ask_for_verification(self, execution_id: str, principal: Principal) -> Standing:
        """Mark the outcome as one that somebody has to verify."""
        return await self._set(execution_id, OutcomeState.VERIFICATION_PENDING, None, principal)

    async def _set(self, execution_id: str, state: OutcomeState, reason: str | None, principal: Principal) -> Standing:
        async def step(standing: Standing, now: datetime) -> Event | Standing:
            execution = standing.execution
            _outcome_of(execution)
            if execution.outcome_state is state and (execution.judged or state not in VERIFIABLE):
                return standing
            if execution.outcome_state not in VERIFIABLE:
                raise Conflict("invalid_state", "The outcome's verification is settled.")
            return VerificationChanged(
                at=now,
                by=f"key:{principal.key_id}",
                execution=execution.number,
                outcome_state=state,
                reason=reason,
            )

        return await self._change_execution(execution_id, principal, "execution.verify", step)


def _outcome_of(execution: Execution) -> Outcome:
    if execution.state is not State.DELIVERED or execution.outcome is None:
        raise Conflict("no_outcome", "No outcome is recorded for this execution.")
    return execution.outcome
