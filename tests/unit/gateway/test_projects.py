"""What names a project, and what names an agent in it."""

import pytest

from contracts.errors import Invalid, NotFound
from contracts.records import Principal
from gateway.address import ById, BySlug
from gateway.project_agents import narrowed_by
from gateway.projects import address_in, owner_of
from tests.builders import BG, agent

MAX = Principal(owner="max", key_id="k")
ADMIN = Principal(owner="local", key_id="k", admin=True)


def test_a_key_names_its_own_project_and_an_admin_key_any() -> None:
    assert owner_of("max", MAX) == "max"
    assert owner_of("max", ADMIN) == "max"


@pytest.mark.parametrize("project", ["eve", "nobody", "Max", "*", "max.eve", ""])
def test_every_other_project_is_not_found(project: str) -> None:
    with pytest.raises(NotFound) as refused:
        owner_of(project, MAX)

    assert refused.value.code == "project_not_found"


@pytest.mark.parametrize("project", ["*", "Max", "max.eve", ""])
def test_what_can_be_no_owner_is_not_found_by_an_admin_key_either(project: str) -> None:
    with pytest.raises(NotFound):
        owner_of(project, ADMIN)


def test_ids_in_both_spellings_and_names_are_read_in_their_project() -> None:
    assert (
        address_in("max", "agt_0123456789ab") == address_in("max", "agent_0123456789ab") == ById("agent_0123456789ab")
    )
    assert address_in("max", "builder") == BySlug("builder", "max")
    assert address_in("max", "builder@eve") == BySlug("builder", "eve")


@pytest.mark.parametrize("reference", ["sessions", "Two Words", "*", "", "agt_short_"])
def test_what_can_be_no_agent_is_not_found(reference: str) -> None:
    with pytest.raises(NotFound) as refused:
        address_in("max", reference)

    assert refused.value.code == "agent_not_found"


def test_a_query_narrows_by_every_part_of_it_that_is_known() -> None:
    query = [("limit", "5"), ("capabilities.model", "m1"), ("capabilities.model", "m2"), ("capabilities.n", "3")]
    wanted = narrowed_by(query, status="active", kind="llm", account_id=None)

    fitting = agent(BG, kind="llm", capabilities={"model": "m2", "n": 3})
    assert wanted.selector.fits(fitting)
    assert not wanted.selector.fits(agent(BG, kind="rpa", capabilities={"model": "m2", "n": 3}))
    assert not wanted.selector.fits(agent(BG, kind="llm", capabilities={"model": "m3", "n": 3}))


def test_lists_that_differ_in_anything_have_cursors_of_their_own() -> None:
    plain = narrowed_by([], status=None, kind=None, account_id=None)
    others = [
        narrowed_by([], status="active", kind=None, account_id=None),
        narrowed_by([], status=None, kind="active", account_id=None),
        narrowed_by([], status=None, kind=None, account_id="active"),
        narrowed_by([("capabilities.a", "active")], status=None, kind=None, account_id=None),
    ]

    assert len({plain.scope, *(each.scope for each in others)}) == 5


def test_more_paths_than_a_selector_may_have_are_refused() -> None:
    query = [(f"capabilities.p{number}", "x") for number in range(11)]

    with pytest.raises(Invalid) as refused:
        narrowed_by(query, status=None, kind=None, account_id=None)

    assert refused.value.code == "invalid_filter"
