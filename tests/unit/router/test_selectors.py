"""Which agents a selector fits: JSON's equality, lists, paths, and what nobody says."""

from typing import Any

import pytest

from contracts.records import Profile
from contracts.words import AgentStatus
from router.selectors import path_of, said_by, selector_of, selector_of_texts
from tests.builders import BG, INBOX, agent

WORKER = agent(
    BG,
    INBOX,
    slug="worker",
    kind="llm",
    status=AgentStatus.ACTIVE,
    service_account_id="sa_1",
    profile=Profile(specialization="law", tools=("search", "browse")),
    capabilities={
        "model": "haiku",
        "n": 1,
        "fast": True,
        "none": None,
        "langs": ["en", "fr"],
        "gpu": {"n": 4, "kinds": ["a", {"deep": 1}]},
        "empty": [],
    },
)


@pytest.mark.parametrize(
    ("key", "value", "fits"),
    [
        ("kind", "llm", True),
        ("kind", "LLM", False),
        ("kind", None, False),
        ("kind", ["rpa", "llm"], True),
        ("name", "worker", True),
        ("status", "active", True),
        ("service_account_id", "sa_1", True),
        ("specialization", "law", True),
        ("specialization", "la", False),
        ("tools", "browse", True),
        ("tools", "brow", False),
        ("delivery_capabilities", "bg", True),
        ("delivery_capabilities", "live", False),
        ("capabilities.model", "haiku", True),
        ("capabilities.n", 1, True),
        ("capabilities.n", 1.0, True),
        ("capabilities.n", True, False),
        ("capabilities.n", "1", False),
        ("capabilities.fast", True, True),
        ("capabilities.fast", 1, False),
        ("capabilities.fast", [0, 1, "true"], False),
        ("capabilities.none", None, True),
        ("capabilities.none", False, False),
        ("capabilities.absent", None, True),
        ("capabilities.absent", "x", False),
        ("capabilities.langs", "fr", True),
        ("capabilities.langs", ["de", "en"], True),
        ("capabilities.empty", None, False),
        ("capabilities.gpu.n", 4, True),
        ("capabilities.gpu", 4, False),
        ("capabilities.gpu.n.more", None, True),
        ("capabilities.gpu.n.more", 4, False),
        ("capabilities.model.real", "haiku", False),
        ("capabilities.gpu.kinds", "a", True),
        ("capabilities.langs.0", "en", False),
    ],
)
def test_a_term_fits_by_json_equality(key: str, value: Any, fits: bool) -> None:
    assert selector_of({key: value}).fits(WORKER) is fits


def test_every_term_has_to_fit() -> None:
    assert selector_of({"kind": "llm", "capabilities.model": "haiku"}).fits(WORKER)
    assert not selector_of({"kind": "llm", "capabilities.model": "opus"}).fits(WORKER)


def test_an_agent_that_says_nothing_fits_null_alone() -> None:
    assert selector_of({"kind": None, "specialization": None, "service_account_id": None}).fits(agent())
    assert not selector_of({"kind": "llm"}).fits(agent())


@pytest.mark.parametrize(
    ("key", "text", "fits"),
    [
        ("capabilities.n", "1", True),
        ("capabilities.n", "1.0", True),
        ("capabilities.fast", "true", True),
        ("capabilities.fast", "1", False),
        ("capabilities.absent", "null", True),
        ("capabilities.model", "haiku", True),
        ("capabilities.model", '"haiku"', False),
        ("kind", "null", False),
        ("capabilities.n", "NaN", False),
        ("capabilities.n", "9" * 5_000, False),
        ("capabilities.n", "[" * 100_000, False),
    ],
)
def test_a_text_stands_for_itself_and_for_the_scalar_it_spells(key: str, text: str, fits: bool) -> None:
    assert selector_of_texts([(key, text)]).fits(WORKER) is fits


def test_texts_of_one_key_are_alternatives() -> None:
    assert selector_of_texts([("kind", "rpa"), ("kind", "llm")]).fits(WORKER)
    assert not selector_of_texts([("kind", "rpa"), ("name", "worker")]).fits(WORKER)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("capabilities.a", ("a",)),
        ("capabilities.a.b", ("a", "b")),
        ("capabilities", None),
        ("capabilities.", None),
        ("capabilities..a", None),
        ("capabilities.a.", None),
        ("capabilities" + ".a" * 8, ("a",) * 8),
        ("capabilities" + ".a" * 9, None),
        ("capabilities." + "a" * 200, None),
        ("metadata.a", None),
    ],
)
def test_a_path_leads_somewhere_and_not_too_deep(key: str, path: tuple[str, ...] | None) -> None:
    assert path_of(key) == path


def test_what_an_agent_says_of_its_secrets_nobody_can_ask() -> None:
    assert list(said_by(agent(webhook_secret="whsec_x"), "webhook_secret")) == [None]
