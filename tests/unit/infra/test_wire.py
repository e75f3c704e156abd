"""How messages to the broker look on the wire, and which ones are never written."""

import pytest

from infra.wire import published


def test_a_plain_message_is_a_pub() -> None:
    assert published("a.b", b"hello") == b"PUB a.b  5\r\nhello\r\n"
    assert published("a.b", b"", reply="r") == b"PUB a.b r 0\r\n\r\n"


def test_headers_make_it_an_hpub_with_both_lengths() -> None:
    block = b"NATS/1.0\r\nOne: 1\r\nTwo: 2\r\n\r\n"
    told = published("a.b", b"hello", reply="r", headers={"One": "1", "Two": "2"})
    assert told == b"HPUB a.b r %d %d\r\n%bhello\r\n" % (len(block), len(block) + 5, block)


def test_lengths_count_bytes() -> None:
    assert published("a", "ü".encode()) == b"PUB a  2\r\n\xc3\xbc\r\n"


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB b", "a\n", "\ta"])
def test_a_subject_that_would_break_its_line_is_refused(subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        published(subject, b"")


def test_a_header_that_would_break_its_line_is_refused() -> None:
    with pytest.raises(ValueError, match="header"):
        published("a", b"", headers={"One": "1\r\nTwo: 2"})
