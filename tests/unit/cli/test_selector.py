"""Agents named by what they are, on the command line."""

from typing import Any

import pytest

from cli.failures import Misused
from cli.selector import Pick, addressee, terms


@pytest.mark.parametrize(
    ("texts", "where"),
    [
        (["kind=llm"], {"kind": "llm"}),
        (["capabilities.model=a=b"], {"capabilities.model": "a=b"}),
        (["capabilities.n=1", "capabilities.x=1.5"], {"capabilities.n": 1, "capabilities.x": 1.5}),
        (["capabilities.a=true", "capabilities.b=null"], {"capabilities.a": True, "capabilities.b": None}),
        (['capabilities.version="3"'], {"capabilities.version": "3"}),
        (["kind=llm", "kind=rpa"], {"kind": ["llm", "rpa"]}),
        (["capabilities.a={}"], {"capabilities.a": "{}"}),
        (["kind="], {"kind": ""}),
    ],
)
def test_a_value_is_a_json_scalar_or_a_text(texts: list[str], where: dict[str, Any]) -> None:
    assert terms(texts) == where


def test_an_address_or_a_selector() -> None:
    assert addressee("a@b", None, None, None) == "a@b"
    assert addressee(None, ["kind=llm"], None, None) == {"where": {"kind": "llm"}}
    assert addressee(None, ["kind=llm"], Pick.ALL, "acme") == {
        "where": {"kind": "llm"},
        "pick": "all",
        "project": "acme",
    }


@pytest.mark.parametrize(
    "said",
    [
        (None, None, None, None),
        ("a", ["kind=llm"], None, None),
        ("a", None, Pick.ALL, None),
        ("a", None, None, "acme"),
        (None, ["kind"], None, None),
        (None, ["=llm"], None, None),
    ],
)
def test_neither_nor_both_is_misuse(said: Any) -> None:
    with pytest.raises(Misused):
        addressee(*said)
