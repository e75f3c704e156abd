"""Logs as JSON lines on standard error: one object per line, control characters escaped, secrets blacked out."""

import logging
import re
import sys
from functools import lru_cache
from typing import Any, Final, TextIO

import structlog
from pydantic import SecretStr
from pydantic_core import to_json
from structlog.typing import EventDict, WrappedLogger

from infra.clock import SystemClock

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
HIDDEN: Final = "[hidden]"
_CLOCK: Final = SystemClock()
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_SECRET_NAME: Final = re.compile(
    r"secret|token|password|passwd|authorization|api_?key\Z|\Akey\Z|nonce|credential", re.I
)
# Our keys, webhooks' secrets of both kinds, nkeys' seeds, and signed tokens of anybody.
_SECRET_TEXT: Final = re.compile(
    r"pr_[a-z0-9]{12}_[A-Za-z0-9]{43}(?:_[A-Za-z0-9]{6})?|whs(?:ec|k)_[A-Za-z0-9+/=]{20,}"
    r"|\bS[A-Z][A-Z2-7]{56}\b|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
)
_SECRET_SIGNS: Final = ("pr_", "whs", "eyJ")
_SEED_TYPES: Final = ("SU", "SA", "SO", "SC", "SN")
_PASSWORD_IN_URL: Final = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+@")


def configure_logs(level: str, stream: TextIO = sys.stderr) -> None:
    """Send our own lines and those of the libraries to `stream` from `level` upwards. Call once, at the start."""
    number = logging.getLevelName(level.upper())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            stamp,
            structlog.processors.format_exc_info,
            hide_secrets,
            as_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_ThroughStructlog()], level=max(number, logging.WARNING), force=True)


def stamp(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event["timestamp"] = f"{_CLOCK.now().isoformat(timespec='microseconds')[:-6]}Z"
    return event


def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Black out what a name or a type calls a secret, and what looks like one of our keys in any text."""
    if _is_harmless(event):
        return event
    return {name: HIDDEN if _names_a_secret(name) else _hidden(value) for name, value in event.items()}


def as_line(_: WrappedLogger, __: str, event: EventDict) -> str:
    return to_json(event, fallback=str, inf_nan_mode="strings").decode()


def _is_harmless(event: EventDict) -> bool:
    """Say whether a line can be seen at once to hold no secret, as nearly all can: a few searches over all of it."""
    if _name_secrets(tuple(event)):
        return False
    values = event.values()
    if not _PLAIN.issuperset(map(type, values)):
        return False
    text = "\n".join([value for value in values if type(value) is str])
    return not (_may_hold_a_secret(text) or "://" in text)


def _may_hold_a_secret(text: str) -> bool:
    """Whether any pattern has to be tried: searches for fixed texts are far quicker, and most lines are about ids."""
    return any(sign in text for sign in _SECRET_SIGNS) or any(kind in text for kind in _SEED_TYPES)


@lru_cache(maxsize=1_000)
def _name_secrets(names: tuple[str, ...]) -> bool:
    return any(map(_names_a_secret, names))


@lru_cache(maxsize=1_000)
def _names_a_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _hidden(value: Any) -> Any:
    if isinstance(value, float | int):
        return value
    if isinstance(value, str):
        text = _SECRET_TEXT.sub(HIDDEN, value) if _may_hold_a_secret(value) else value
        return _PASSWORD_IN_URL.sub(rf"\1:{HIDDEN}@", text) if "://" in text else text
    if isinstance(value, SecretStr | bytes):
        return HIDDEN
    if isinstance(value, dict):
        return {name: HIDDEN if _names_a_secret(str(name)) else _hidden(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(each) for each in value]
    return value


class _ThroughStructlog(logging.Handler):
    """Lines of libraries that use the standard library's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger()
        logger.log(record.levelno, record.getMessage(), library=record.name, exc_info=record.exc_info or None)
