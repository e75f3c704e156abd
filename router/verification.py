"""What an outcome is worth: reported, verified, pending or refuted, by the sender's verification mode. Pure.

success ── none ──▶ reported_success      require_* ── evidence there ──▶ verified_success
        ── manual ──▶ verification_pending            └─ missing ──▶ verification_failed
failure ─────────▶ reported_failure, whatever the mode
"""

from collections.abc import Mapping
from typing import Any, Final

from contracts.words import OutcomeState, VerificationMode

EVIDENCE_FIELDS: Final = ("external_id", "result_url", "result_ref", "result_type", "summary", "artifacts")

_NEEDS: Final = {
    VerificationMode.REQUIRE_EXTERNAL_ID: "external_id",
    VerificationMode.REQUIRE_RESULT_URL: "result_url",
    VerificationMode.REQUIRE_ARTIFACTS: "artifacts",
}

VERIFIABLE: Final = frozenset(
    {
        OutcomeState.REPORTED_SUCCESS,
        OutcomeState.REPORTED_FAILURE,
        OutcomeState.VERIFICATION_PENDING,
        OutcomeState.VERIFICATION_FAILED,
    }
)
"""The states a person or a program may still verify or refute."""


def worth(mode: VerificationMode, *, success: bool, evidence: Mapping[str, Any]) -> OutcomeState:
    """The state of an outcome with this evidence. An empty list or text counts as missing."""
    if not success:
        return OutcomeState.REPORTED_FAILURE
    if mode is VerificationMode.NONE:
        return OutcomeState.REPORTED_SUCCESS
    if mode is VerificationMode.MANUAL:
        return OutcomeState.VERIFICATION_PENDING
    return OutcomeState.VERIFIED_SUCCESS if evidence.get(_NEEDS[mode]) else OutcomeState.VERIFICATION_FAILED


def verified(*, valid: bool) -> OutcomeState:
    return OutcomeState.VERIFIED_SUCCESS if valid else OutcomeState.VERIFICATION_FAILED
