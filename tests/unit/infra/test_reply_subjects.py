"""What the broker says of a record in its reply subject: read as nats-py does, and refused where there is nothing."""

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from contracts.errors import Unavailable
from infra.ledger_tail import sequences

REPLIES = [
    "$JS.ACK.LEDGER.c0ns.1.1234.56.1700000000000000000.789",
    "$JS.ACK._.hash.LEDGER.c0ns.1.1234.56.1700000000000000000.789",
    "$JS.ACK.hub.hash.LEDGER.c0ns.1.1234.56.1700000000000000000.789.token",
]


@pytest.mark.parametrize("reply", REPLIES)
def test_the_sequences_are_those_nats_py_reads(reply: str) -> None:
    theirs = Msg(Client(), subject="led.u1", reply=reply).metadata.sequence

    assert sequences(reply) == (theirs.stream, theirs.consumer) == (1234, 56)


@pytest.mark.parametrize("reply", ["", "_INBOX.abc.1", "$JS.ACK.LEDGER.c0ns.1", "a.b.c.d.1.2.3.4.5"])
def test_what_no_stream_sent_is_refused(reply: str) -> None:
    with pytest.raises(Unavailable, match="not a message of a stream"):
        sequences(reply)
