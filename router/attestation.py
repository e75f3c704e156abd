"""Is this claim from the real session? Pure.

A background subprocess on the same host can read the agent's memory, its files, even the session's sidecar, and say
that it is the session. So a claim must show the token of an attached, fresh session, and, where the session or the
agent asks for it, the nonce that travelled in this very push and nowhere else. All of it by the server's clock.

The nonce is derived, not stored: HMAC-SHA256 over execution and offer, keyed with the installation's secret. Every
gateway can check it and no database can leak it.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

from contracts.records import Agent, LiveSession, Reachability
from contracts.words import AttestationLevel, Channel, State
from router.execution import Execution


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a claimer shows. Never logged."""

    session_token: str
    nonce: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """The claim holds. `repeated`: this session had won already."""

    session: LiveSession
    level: AttestationLevel
    repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The claim does not hold. `code` is what the claimer reads; `is_proof` says that its proof was the trouble."""

    code: str
    message: str
    is_proof: bool = False


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def push_nonce(secret: bytes, execution_id: str, claim_before: datetime) -> str:
    """The nonce of one offer; another offer of the same execution has another one."""
    text = f"{execution_id}|{claim_before.isoformat()}"
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:40]


def attest(
    proof: Proof,
    execution: Execution,
    *,
    agent: Agent,
    sessions: tuple[LiveSession, ...],
    reach: Reachability,
    expected_nonce: str | None,
    now: datetime,
) -> Attested | Refused:
    """Judge a live claim.

    Order: was it ever offered live; whose token is it; is that session fresh; is the offer still open; does the nonce
    match. The token comes before the state, so that a caller without one learns nothing of it.
    """
    if not execution.was_offered:
        return Refused(code="not_offered_live", message="This execution was not offered to a live session.")
    session = _owner_of_token(proof.session_token, sessions)
    if session is None or _is_stale(session, agent, reach, now):
        return Refused(code="invalid_session_token", message="The session token is not valid.", is_proof=True)
    closed = _closed(execution, session, now)
    if isinstance(closed, Refused):
        return closed
    level = _level(proof, agent, session, expected_nonce)
    if isinstance(level, Refused):
        return level
    return Attested(session=session, level=level, repeated=closed)


def _owner_of_token(token: str, sessions: tuple[LiveSession, ...]) -> LiveSession | None:
    """Compare with every session in constant time each, so that timing does not tell which one was close."""
    presented = token_hash(token)
    found = None
    for session in sessions:
        if hmac.compare_digest(presented, session.token_sha256) and session.is_attached:
            found = session
    return found


def _is_stale(session: LiveSession, agent: Agent, reach: Reachability, now: datetime) -> bool:
    """A session known to be silent may not claim. When nothing is known, the claim itself is a sign of life."""
    fact = next((each for each in reach.sessions if each.id == session.id), None)
    if not reach.known or fact is None or fact.last_seen_at is None:
        return False
    return fact.is_gone or now - fact.last_seen_at > timedelta(seconds=agent.heartbeat_age_sec)


def _closed(execution: Execution, session: LiveSession, now: datetime) -> bool | Refused:
    """True: this session holds the claim already. False: the offer is open."""
    if execution.claim is not None:
        if execution.claim.session_id == session.id:
            return True if execution.state is State.CLAIMED else _ended(execution)
        return Refused(code="already_claimed", message="Another session has claimed this execution.")
    if execution.state in (State.QUEUED, State.LEASED) or execution.channel is not Channel.LIVE:
        return Refused(code="claim_window_closed", message="The claim window has closed.")
    if not execution.is_open:
        return _ended(execution)
    if execution.state is not State.OFFERED or execution.claim_before is None or now > execution.claim_before:
        return Refused(code="claim_window_closed", message="The claim window has closed.")
    return False


def _ended(execution: Execution) -> Refused:
    if execution.state is State.LIVE_UNCLAIMED_NO_FALLBACK:
        return Refused(code="claim_window_closed", message="The claim window has closed.")
    return Refused(code="execution_closed", message="This execution has ended.")


def _level(proof: Proof, agent: Agent, session: LiveSession, expected_nonce: str | None) -> AttestationLevel | Refused:
    matches = (
        proof.nonce is not None
        and expected_nonce is not None
        and hmac.compare_digest(proof.nonce.encode("utf-8", "surrogatepass"), expected_nonce.encode())
    )
    if matches:
        return AttestationLevel.TOKEN_NONCE
    needs_nonce = AttestationLevel.TOKEN_NONCE in (agent.attestation, session.attestation)
    if needs_nonce or proof.nonce is not None:
        return Refused(code="push_proof_missing", message="The nonce of the push is missing or wrong.", is_proof=True)
    return AttestationLevel.TOKEN
