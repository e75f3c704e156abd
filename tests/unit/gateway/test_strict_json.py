"""Bodies are read strictly: what two readers could understand differently is refused with a code."""

import json
import time

import pytest

from contracts.errors import Invalid, Malformed, Rejected
from gateway.strict_json import MAX_DEPTH, MAX_ELEMENTS, parse_object


def refusal(body: bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        parse_object(body)
    return caught.value


def nested(depth: int) -> bytes:
    """An object whose innermost value is `depth` levels down, the object itself included."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_an_ordinary_body_is_read_as_it_is() -> None:
    value = {"to": "a", "n": -1, "x": 1.5, "big": 2**63, "null": None, "yes": True, "list": ["ü", {"é": "😀"}]}

    assert parse_object(json.dumps(value).encode()) == value
    assert parse_object(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize("body", [b"", b"  ", b"null", b"[]", b'"text"', b"7", b"true"])
def test_what_is_no_object_is_named_so(body: bytes) -> None:
    assert refusal(body).code == "invalid_json_object"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"a":1',
        b'{"a":1}x',
        b'{"a":1}{}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":01}',
        b'{"a":"\n"}',
        b'{"a":.5}',
        b"\xe2\x80\x83{}",
    ],
)
def test_broken_json_is_refused_with_its_offset(body: bytes) -> None:
    error = refusal(body)

    assert error.code == "invalid_json"
    assert isinstance(error.facts["offset"], int)


@pytest.mark.parametrize(
    "body",
    [
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-16-le"),
        '{"a":1}'.encode("utf-32-be"),
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\x80"}',
    ],
)
def test_only_utf_8_without_a_mark_is_read(body: bytes) -> None:
    assert refusal(body).code == "invalid_encoding"


@pytest.mark.parametrize("body", [b'{"a":1,"a":1}', b'{"x":[{"a":1,"\\u0061":2}]}'])
def test_a_key_twice_is_refused_however_deep_and_however_written(body: bytes) -> None:
    assert refusal(body).code == "duplicate_key"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1E400"])
def test_what_is_no_finite_number_is_refused(number: bytes) -> None:
    assert refusal(b'{"a":%s}' % number).code == "invalid_number"


@pytest.mark.parametrize("digits", [b"9" * 4_000, b"9" * 5_000, b"18446744073709551616", b"-9223372036854775809"])
def test_an_integer_of_more_than_64_bits_is_refused(digits: bytes) -> None:
    assert refusal(b'{"a":%s}' % digits).code == "number_out_of_range"


def test_nesting_is_bounded_exactly() -> None:
    assert parse_object(nested(MAX_DEPTH))
    assert refusal(nested(MAX_DEPTH + 1)).code == "too_deep"
    assert refusal(nested(60_000)).code == "too_deep"


def test_brackets_inside_strings_are_not_nesting() -> None:
    text = '[{"' * 1_000

    assert parse_object(json.dumps({"message": text, "list": [[text]]}).encode())["message"] == text


def test_a_flood_of_elements_is_refused_and_a_flood_of_commas_in_a_text_is_not() -> None:
    items = json.dumps({"a": list(range(MAX_ELEMENTS + 1))}, separators=(",", ":")).encode()
    keys = json.dumps({f"k{n}": n for n in range(MAX_ELEMENTS + 1)}, separators=(",", ":")).encode()

    assert [refusal(body).code for body in (items, keys)] == ["too_many_elements"] * 2
    assert refusal(items).http_status == 413
    assert parse_object(json.dumps({"a": "," * 50_000}).encode())


@pytest.mark.parametrize(
    "body", [b'{"a":"\\ud800"}', b'{"a":[{"b":"x\\uDFFF"}]}', b'{"\\ud800":1}', b'{"a":"\\udc00\\ud800"}']
)
def test_half_a_surrogate_pair_is_never_let_in(body: bytes) -> None:
    error = refusal(body)

    assert isinstance(error, Invalid)
    assert error.code == "invalid_unicode"


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert parse_object(b'{"a":"\\ud83d\\ude00"}') == {"a": "😀"}


@pytest.mark.parametrize("body", [b'{"a":"x\\u0000"}', b'{"\\u0000":1}'])
def test_nul_is_refused_in_values_and_keys(body: bytes) -> None:
    assert refusal(body).code == "control_character"


def test_an_escaped_backslash_is_not_an_escape() -> None:
    assert parse_object(b'{"a":"\\\\u0000 \\\\ud800"}') == {"a": "\\u0000 \\ud800"}


def test_a_body_made_to_be_slow_is_not() -> None:
    body = b'{"a":"' + b'\\"[' * 43_000
    started = time.perf_counter()

    assert isinstance(refusal(body), Malformed)
    assert time.perf_counter() - started < 0.5
