"""The router's operations in one hand: accept · claim · lease · report · close. Each part has a file of its own."""

from router.acceptance import Acceptance, Draft
from router.attestation import Proof
from router.claims import Claims
from router.contexts import Contexts
from router.desk import Neighbours, Policy, Standing
from router.endings import Endings
from router.evidence import Evidence
from router.leases import Leases
from router.redriving import Redriving
from router.reports import Report
from router.selecting import Selecting


class Service(Acceptance, Selecting, Claims, Leases, Contexts, Endings, Evidence, Redriving):
    """What the gateway calls in-process and the worker calls later."""


__all__ = ["Draft", "Neighbours", "Policy", "Proof", "Report", "Service", "Standing"]
