"""Secrets in log lines: their shapes, whoever was handed them, and the end of every test, which looks for them.

The shapes are written down here once more on purpose: what blacks secrets out in `infra/logs.py` is not its own judge.
"""

import re
from collections.abc import Generator, Iterable
from typing import Any, Final

import pytest

SHAPES: Final = re.compile(
    r"pr_[a-z0-9]{12}_[A-Za-z0-9]{20,}"  # our keys
    r"|whs(?:ec|k)_[A-Za-z0-9+/=]{16,}"  # webhooks' secrets
    r"|\bS[AUOCNX][A-Z2-7]{54,}"  # nkeys' seeds
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\."  # signed tokens
    r"|://[^/\s:@]*:[^/\s:@\[\]]{6,}@"  # passwords in URLs
)
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
# A line of ours as JSON, or as structlog shows it where nobody has configured it.
_LOG_LINE: Final = re.compile(r'\{.*"level":|\d{4}-\d\d-\d\d[T ][\d:.]+Z? \[[a-z]+ *\]')
_SECRET_FIELD: Final = re.compile(r"secret|token|nonce|seed|jwt|creds|password|\A(?:api_)?key\Z")
_SHORTEST: Final = 16


def secret_lines(sections: Iterable[tuple[str, str]]) -> list[str]:
    """The log lines in a test's captured output that hold what has a secret's shape."""
    return [line for title, text in sections for line in _log_lines(title, text) if SHAPES.search(line)]


def _log_lines(title: str, text: str) -> list[str]:
    lines = _COLOUR.sub("", text).splitlines()
    return lines if "log" in title else [line for line in lines if _LOG_LINE.match(line)]


def secrets_in(document: Any, field: str = "") -> set[str]:
    """The texts in an answer that stand under a secret's name."""
    if isinstance(document, dict):
        return {secret for name, value in document.items() for secret in secrets_in(value, str(name))}
    if isinstance(document, list):
        return {secret for value in document for secret in secrets_in(value, field)}
    is_secret = isinstance(document, str) and len(document) >= _SHORTEST and _SECRET_FIELD.search(field)
    return {document} if is_secret else set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail whatever test logged a secret, at its end: then all that was captured of it is there."""
    report = yield
    if report.when == "teardown" and (found := secret_lines(report.sections)):
        report.outcome = "failed"
        report.longrepr = "a log line of this test holds a secret:\n" + "\n".join(found)
    return report
