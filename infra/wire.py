"""Messages to the broker as they travel: PUB and HPUB of the NATS client protocol.

nats-py renders one message at a time and checks each header by a pattern, which costs more than all the rest of an
append. Subjects and headers here are our own words and numbers.
"""

from collections.abc import Mapping


def published(subject: str, payload: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None) -> bytes:
    """One message. Raises `ValueError` for a subject or a header that would break out of its line."""
    if subject.split() != [subject]:
        raise ValueError("a subject is one word")
    if not headers:
        return b"%b%b\r\n" % (f"PUB {subject} {reply} {len(payload)}\r\n".encode(), payload)
    lines = "\r\n".join([f"{name}: {value}" for name, value in headers.items()])
    if lines.count("\n") != len(headers) - 1:
        raise ValueError("a header is one line")
    block = f"NATS/1.0\r\n{lines}\r\n\r\n".encode()
    line = f"HPUB {subject} {reply} {len(block)} {len(block) + len(payload)}\r\n"
    return b"%b%b%b\r\n" % (line.encode(), block, payload)
