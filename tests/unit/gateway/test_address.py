"""Addresses: the three forms, and what is none of them."""

import pytest

from contracts.errors import Invalid
from gateway.address import ById, BySlug, parse_address, refuse_reserved


def test_the_three_forms_are_told_apart() -> None:
    assert parse_address("agent_0123456789ab") == ById("agent_0123456789ab")
    assert parse_address("agt_0123456789ab") == ById("agent_0123456789ab")
    assert parse_address("cue-mac-app@max") == BySlug("cue-mac-app", "max")
    assert parse_address("cue-mac-app") == BySlug("cue-mac-app")


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "@", "a@", "@b", "a@b@c", "a@b ", " a", "a b", "a\n", "A", "a@B", "-a", "a-", "a_b", "a.b", "a/b"),
        *("a*", "a>", "$a", "a%20", "a:b", "agent_", "agent_ZZ!", "agent_0123456789a", "agent_0123456789abc"),
        *("AGENT_0123456789ab", "agent_0123456789AB", "agent_0123456789ab\n", "agent_0123456789ab@max"),
        *("сue", "ａ", "é", "a\u200b", "a" * 64, "a@" + "b" * 64, "a" * 10_000),
    ],
)
def test_what_is_no_address_is_refused_without_echo(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_address(text)

    assert caught.value.code == "invalid_address"
    assert caught.value.facts == {"field": "to"}
    assert len(text) < 8 or text not in caught.value.message


@pytest.mark.parametrize(
    "slug", ["admin", "api", "auth", "billing", "system", "support", "me", "all", "live", "roster"]
)
def test_names_that_mean_something_else_are_nobodys(slug: str) -> None:
    with pytest.raises(Invalid) as caught:
        refuse_reserved(slug)

    assert caught.value.code == "reserved_slug"
