"""Leases of workers that know no numbers: their outcome needs none; a number that is given still has to be right."""

from dataclasses import replace

import pytest

from contracts.words import State
from router.execution import Execution
from router.reports import Report, Unacceptable, judge
from tests.builders import NOW, execution_in


def of_lease(*, fenced: bool) -> Execution:
    execution = execution_in(State.LEASED)
    assert execution.lease is not None
    return replace(execution, lease=replace(execution.lease, fenced=fenced))


@pytest.mark.parametrize(
    ("fenced", "lease", "code"),
    [(False, None, None), (False, 1, None), (False, 2, "stale_lease"), (True, None, "stale_lease"), (True, 1, None)],
)
def test_an_outcome_counts_under_the_present_lease_alone(fenced: bool, lease: int | None, code: str | None) -> None:
    verdict = judge(Report(success=True, lease=lease), of_lease(fenced=fenced), NOW)

    assert (verdict.code if isinstance(verdict, Unacceptable) else None) == code
