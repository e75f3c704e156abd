"""How messages to the broker look on the wire, and which ones are never written."""

import pytest

from infra.wire import batch_member, published


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


def test_a_member_of_a_batch_bears_its_number_in_it() -> None:
    numbered = {"Nats-Batch-Id": "b.1", "Nats-Batch-Sequence": "7"}

    assert batch_member("a.b", b"hello", "b.1", 7) == published("a.b", b"hello", headers=numbered)
    assert batch_member("a.b", b"", "b.1", 7, headers={"One": "1"}, reply="r") == published(
        "a.b", b"", reply="r", headers={**numbered, "One": "1"}
    )


@pytest.mark.parametrize(("subject", "value"), [("a b", "1"), ("a", "1\r\nTwo: 2")])
def test_a_member_of_a_batch_that_would_break_its_lines_is_refused(subject: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"subject|header"):
        batch_member(subject, b"", "b.1", 1, headers={"One": value})
