"""A request's bytes become checked JSON values, or a refusal that says which rule they broke. Pure.

The standard library's reader is too kind: it takes the last of two equal keys, reads `NaN`, turns `1e999` into infinity
and lets a lone surrogate through, which nothing after it can encode. What two readers understand differently is refused
here, once, for every route. Cheap counts over the bytes decide whether a body needs a closer look at all.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from contracts.errors import Invalid, Malformed

MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 10_000
_MAX_INTEGER_DIGITS: Final = 20
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**64 - 1

# Linear on any input: once a quote is seen the match cannot fail, so nothing is scanned twice.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKETS: Final = re.compile(rb"[\[\]{}]")
_SUSPECT_ESCAPE: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_SUSPECT_START: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises `Malformed`, or `Invalid` for text that is not Unicode."""
    text = _decoded(body)
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _refuse_depth(body)
    value = _parsed(text)
    if not isinstance(value, dict):
        raise Malformed("invalid_json_object", "The body has to be a JSON object.")
    if body.count(b",") >= MAX_ELEMENTS:
        _refuse_elements(value)
    if _SUSPECT_ESCAPE.search(body):
        _refuse_strings(value)
    return value


def _decoded(body: bytes) -> str:
    # JSON opens with an ASCII character: a zero byte beside it is UTF-16 or UTF-32 without a mark.
    if body.startswith(_SUSPECT_START) or b"\0" in body[:4]:
        raise Malformed("invalid_encoding", "The body has to be UTF-8 without a byte order mark.")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        message = f"The body is not UTF-8 (byte {error.start})."
        raise Malformed("invalid_encoding", message, offset=error.start) from None


def _parsed(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise Malformed("invalid_json_object", "The body has to be a JSON object.") from None
        message = f"The body is not JSON (character {error.pos})."
        raise Malformed("invalid_json", message, offset=error.pos) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Malformed("duplicate_key", "The body names a key of an object twice.")
    return value


def _integer(digits: str) -> int:
    if len(digits) > _MAX_INTEGER_DIGITS or not _MIN_INTEGER <= (value := int(digits)) <= _MAX_INTEGER:
        raise Malformed("number_out_of_range", "An integer in the body has more than 64 bits.")
    return value


def _number(digits: str) -> float:
    value = float(digits)
    if value - value != 0:  # infinity
        raise Malformed("invalid_number", "A number in the body is larger than any double.")
    return value


def _constant(_: str) -> NoReturn:
    raise Malformed("invalid_number", "NaN and Infinity are not JSON.")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant
)


def _refuse_depth(body: bytes) -> None:
    depth = 0
    for bracket in _BRACKETS.findall(_STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise Malformed("too_deep", f"The body is nested deeper than {MAX_DEPTH} levels.")


def _refuse_elements(value: Any) -> None:
    for count, _ in enumerate(_walk(value)):
        if count > MAX_ELEMENTS:
            message = f"The body has more than {MAX_ELEMENTS} elements."
            raise Malformed("too_many_elements", message, status=413)


def _refuse_strings(value: Any) -> None:
    for item in _walk(value):
        if not isinstance(item, str):
            continue
        if "\0" in item:
            raise Invalid("control_character", "The body has a NUL character in a string.")
        try:
            item.encode()
        except UnicodeEncodeError:
            message = "The body has half a surrogate pair in a string."
            raise Invalid("invalid_unicode", message) from None


def _walk(value: Any) -> Iterator[Any]:
    """Every value below `value`, and every key of an object that could hide a bad string."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.values())
            yield from (key for key in item if not key.isascii() or "\0" in key)
        elif isinstance(item, list):
            pending.extend(item)
        yield item
