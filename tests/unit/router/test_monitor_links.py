"""Which monitors hold a connection: whose a connection is, and when the last one is gone."""

import base64
import json
from typing import Any

import pytest

from router.monitor_links import Link, Links, link_of

ACCOUNT = "AEDGE"


def jwt(*subjects: str) -> str:
    claims = json.dumps({"nats": {"pub": {"allow": list(subjects)}}}).encode()
    return f"head.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.sign"


def client(**facts: Any) -> dict[str, Any]:
    return {"id": 7, "acc": ACCOUNT, "name_tag": "EDGE", "name": "whatever", "user": "UUSER", **facts}


def whose(**facts: Any) -> tuple[str, bool] | None:
    link = link_of("S1", client(**facts), ACCOUNT)
    return (link.monitor_id, link.is_checked) if link else None


def test_a_user_that_may_publish_on_one_subject_is_that_monitor_whatever_the_connection_calls_itself() -> None:
    assert whose(jwt=jwt("hb.mac-1"), name="monitor mac-2") == ("mac-1", True)


def test_the_user_for_development_is_believed_its_connections_name() -> None:
    assert whose(jwt=jwt("hb.>"), name="monitor mac-2") == ("mac-2", False)
    assert whose(user="edge", name="monitor mac-2") == ("mac-2", False)


@pytest.mark.parametrize(
    "facts",
    [
        {"jwt": jwt("hb.mac-1"), "acc": "AOTHER", "name_tag": "OTHER"},
        {"jwt": jwt("hb.mac-1", "hb.mac-2")},
        {"jwt": jwt()},
        {"jwt": jwt("hb.*")},
        {"jwt": jwt("hb.a.b")},
        {"jwt": "x"},
        {"jwt": "x.!!!.y"},
        {"jwt": "x." + base64.urlsafe_b64encode(b"[]").decode() + ".y"},
        {"jwt": jwt("hb.>"), "name": "monitor UPPER"},
        {"user": "edge", "name": ""},
        {"user": "core", "name": "monitor mac-1"},
        {"jwt": jwt("hb.mac-1"), "id": None},
    ],
)
def test_every_other_connection_is_no_monitors(facts: dict[str, Any]) -> None:
    assert whose(**facts) is None


def test_a_row_of_a_servers_connections_is_read_like_an_advisory() -> None:
    row = {"cid": 7, "account": ACCOUNT, "authorized_user": "UUSER", "name": "x", "jwt": jwt("hb.mac-1")}
    assert link_of("S1", row, ACCOUNT) == link_of("S1", client(jwt=jwt("hb.mac-1")), ACCOUNT)


def test_the_account_is_known_by_its_name_too() -> None:
    assert link_of("S1", client(user="edge", name="monitor a"), "EDGE") is not None


def link(client_id: int = 1, monitor_id: str = "mac-1", server_id: str = "S1", is_checked: bool = True) -> Link:
    return Link(server_id=server_id, client_id=client_id, monitor_id=monitor_id, is_checked=is_checked)


def whole(*links: Link) -> Links:
    known = Links()
    known.asked()
    known.replace(links)
    return known


def test_the_last_link_of_a_monitor_is_its_end_and_one_of_two_is_not() -> None:
    links = whole(link(1), link(2), link(3, "mac-2"))
    assert not links.closed(link(1), "Client Closed")
    assert links.closed(link(2), "Read Error")
    assert not links.is_gone(link(3, "mac-2"))


def test_a_connection_made_before_the_old_one_goes_is_no_end() -> None:
    links = whole(link(1))
    links.opened(link(1, server_id="S2"))
    assert not links.closed(link(1), "Authentication Expired")


def test_a_connection_made_after_it_takes_the_suspicion_away() -> None:
    links = whole(link(1))
    assert links.closed(link(1), "Stale Connection")
    links.opened(link(2))
    assert not links.is_gone(link(1))


@pytest.mark.parametrize("reason", ["Server Shutdown", "Authentication Expired", "Credentials Revoked", "Kicked"])
def test_what_the_broker_closes_of_its_own_accord_ends_nobody(reason: str) -> None:
    assert not whole(link(1)).closed(link(1), reason)


def test_a_name_alone_neither_ends_nor_keeps_a_checked_monitor() -> None:
    links = whole(link(1), link(2, is_checked=False))
    assert not links.closed(link(2, is_checked=False), "Client Closed")
    links.opened(link(3, is_checked=False))
    assert links.closed(link(1), "Client Closed")


def test_without_knowing_what_is_open_nobody_is_gone() -> None:
    links = Links()
    links.opened(link(1))
    assert not links.closed(link(1), "Client Closed")
    links = whole(link(1))
    links.lost()
    assert not links.closed(link(1), "Client Closed")


def test_what_happens_while_the_servers_are_asked_counts_more_than_their_answer() -> None:
    links = Links()
    links.asked()
    links.opened(link(2))
    links.closed(link(1), "Client Closed")
    links.replace([link(1), link(3, "mac-2")])
    assert len(links) == 2
    assert links.closed(link(2), "Client Closed")


def test_what_the_servers_do_not_name_any_more_is_forgotten() -> None:
    links = whole(link(1), link(1, server_id="S2"))
    links.asked()
    links.replace([link(1)])
    assert links.closed(link(1), "Client Closed")


def test_an_answer_from_before_the_way_broke_is_none() -> None:
    links = Links()
    links.asked()
    links.lost()
    links.replace([link(1)])
    assert len(links) == 0
    assert not links.closed(link(1), "Client Closed")


def test_a_connection_nobody_told_of_may_have_been_the_last() -> None:
    assert whole().closed(link(1), "Client Closed")
