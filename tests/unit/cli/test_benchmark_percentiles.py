"""The percentiles of the benchmark: nearest rank, and never a value nobody measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.benchmark.percentiles import median, percentile, summary

VALUES = st.lists(st.floats(min_value=0, max_value=1e6, allow_nan=False), min_size=1)


def test_the_median_of_an_even_number_of_values_is_the_lower_of_the_middle_two() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0


def test_p99_of_a_hundred_values_is_the_ninety_ninth() -> None:
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0


def test_p99_of_few_values_is_the_slowest() -> None:
    assert percentile([1.0, 2.0, 50.0], 0.99) == 50.0


@given(VALUES, st.floats(min_value=0.001, max_value=1))
def test_a_percentile_is_a_measured_value_and_as_many_as_it_says_do_not_exceed_it(
    values: list[float], share: float
) -> None:
    found = percentile(sorted(values), share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_percentile_of_nothing_or_of_an_impossible_share_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="needs a value"):
        percentile(values, share)


def test_a_summary_is_in_milliseconds_and_sorts_for_itself() -> None:
    assert summary([0.003, 0.001, 0.002]) == {"n": 3, "p50_ms": 2.0, "p99_ms": 3.0, "max_ms": 3.0}


def test_the_summary_of_nothing_has_no_latencies() -> None:
    assert summary([]) == {"n": 0}


def test_the_median_of_no_rounds_is_none() -> None:
    assert median([]) is None
    assert median([3.0, 1.0, 2.0]) == 2.0
