"""What a cron expression may be, which dates it names, and how it is refused."""

from datetime import date
from itertools import islice

import pytest

from contracts.errors import Malformed
from router.cron import MACROS, parse_cron


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "a * * * *",
        "1,, * * * *",
        "-1 * * * *",
        "1.5 * * * *",
        "٣ * * * *",
        "@reboot",
        "0 0 * foo *",
        "*" * 300,
    ],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse_cron(text)

    assert (refused.value.code, refused.value.http_status) == ("invalid_schedule", 400)


@pytest.mark.parametrize("macro", MACROS)
def test_a_macro_is_its_expression(macro: str) -> None:
    assert parse_cron(macro) == parse_cron(MACROS[macro])


def test_lists_ranges_steps_and_names_are_read() -> None:
    cron = parse_cron("5,10-20/5,50/3 */6 1 JAN,jun-aug mon-fri")

    assert cron.minutes == (5, 10, 15, 20, 50, 53, 56, 59)
    assert cron.hours == (0, 6, 12, 18)
    assert cron.months == (1, 6, 7, 8)
    assert cron.weekdays == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("text", ["0 0 * * 0", "0 0 * * 7", "0 0 * * sun", "0 0 * * sun-sun"])
def test_sunday_has_several_spellings(text: str) -> None:
    assert parse_cron(text).weekdays == {0}


def test_a_range_may_end_on_sunday() -> None:
    assert parse_cron("0 0 * * fri-sun").weekdays == parse_cron("0 0 * * 5-7").weekdays == {5, 6, 0}


def test_day_and_weekday_are_either_when_both_are_restricted_and_both_when_one_is_starred() -> None:
    either = parse_cron("0 0 13 * 5")
    both = parse_cron("0 0 */13 * 5")

    assert either.has_date(date(2026, 2, 13))
    assert either.has_date(date(2026, 2, 20))
    assert either.has_date(date(2026, 4, 13))
    assert both.has_date(date(2026, 3, 27))
    assert not both.has_date(date(2026, 2, 13))
    assert not both.has_date(date(2026, 4, 14))


def test_the_thirty_first_skips_shorter_months() -> None:
    dates = parse_cron("0 0 31 * *").dates_from(date(2026, 1, 1))

    assert [each.month for each in islice(dates, 7)] == [1, 3, 5, 7, 8, 10, 12]


def test_a_leap_day_waits_for_its_year_and_a_date_there_is_not_never_comes() -> None:
    leap = parse_cron("0 0 29 2 *").dates_from(date(2096, 3, 1))

    assert next(leap) == date(2104, 2, 29)
    assert list(parse_cron("0 0 30 2 *").dates_from(date(2026, 1, 1))) == []
    assert next(parse_cron("0 0 29 2 */7").dates_from(date(2076, 3, 1))) == date(2088, 2, 29)
