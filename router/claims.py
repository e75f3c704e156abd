"""Live claims and offers: the session that proves itself first has the execution, and the fallback has not."""

from dataclasses import replace
from datetime import datetime

from contracts import ids
from contracts.errors import Conflict, Forbidden
from contracts.events import Claimed, Event, Offered
from contracts.records import Claim, Principal
from contracts.words import Channel, State
from router.attestation import Attested, Proof, Refused, attest
from router.decision import decide, first_state
from router.desk import Desk, Standing, no_execution
from router.terms import claim_before


class Claims(Desk):
    """The live session's side, up to its claim."""

    async def live_claim(self, execution_id: str, proof: Proof, principal: Principal) -> Standing:
        """Attest, then append: the claim that wins excludes the fallback, and the other way round.

        Raises `Forbidden` (`invalid_session_token`, `push_proof_missing`), `Conflict` (`already_claimed`,
        `claim_window_closed`, `not_offered_live`, `execution_closed`, or what `obstacle` says of the agent). The winner
        may repeat itself.
        """

        async def step(standing: Standing, now: datetime) -> Event | Standing:
            verdict = await self._attest(standing, proof, now)
            if isinstance(verdict, Refused):
                raise _refusal(verdict)
            if verdict.repeated:
                return standing
            await self._refuse_idle(standing.history.message.agent_id)
            return self._claimed(verdict, principal, now, standing.execution.number)

        return await self._change_execution(execution_id, principal, "execution.claim", step)

    async def _attest(self, standing: Standing, proof: Proof, now: datetime) -> Attested | Refused:
        message, execution = standing.history.message, standing.execution
        agent = await self._directory.agent(message.agent_id)
        if agent is None:
            raise no_execution()
        sessions = await self._directory.live_sessions(agent.id)
        reach = await self._freshness.reachability(agent.id, sessions)
        # Whoever has been silent for too long to come back is attached no longer, whether that is noted yet or not.
        known = {each.id for each in reach.sessions}
        sessions = tuple(session for session in sessions if session.id in known)
        expected = None
        if execution.claim_before is not None:
            number = execution.number
            expected = self.nonce(ids.execution_id(standing.history.ulid, number), execution.claim_before)
        return attest(proof, execution, agent=agent, sessions=sessions, reach=reach, expected_nonce=expected, now=now)

    def _claimed(self, verdict: Attested, principal: Principal, now: datetime, number: int) -> Claimed:
        claim = Claim(
            session_id=verdict.session.id,
            label=verdict.session.label,
            level=verdict.level,
            key_id=principal.key_id,
            claimed_at=now,
        )
        return Claimed(
            at=now,
            by=f"key:{principal.key_id}",
            execution=number,
            claim=claim,
            outcome_before=now + self._policy.outcome_deadline,
        )

    async def offer_waiting(self, ulid: str, *, by: str) -> Standing | None:
        """Offer a message that waits for a session (`live_only`), if one can be reached now; else None."""
        standing = await self._load(ulid)
        execution, message = standing.execution, standing.history.message
        agent = await self._directory.agent(message.agent_id)
        if execution.state is not State.WAITING or agent is None:
            return None
        q = await self._question(agent)
        decision = decide(replace(message.wish, channel=Channel.LIVE), q)
        if first_state(decision) is not State.OFFERED:
            return None
        event = Offered(
            at=q.now,
            by=by,
            execution=execution.number,
            claim_before=claim_before(message.wish, agent, q.now, execution.expires_at),
            trace=decision.trace,
        )
        return await self._append(standing, event)


def _refusal(refused: Refused) -> Forbidden | Conflict:
    kind = Forbidden if refused.is_proof else Conflict
    return kind(refused.code, refused.message)
