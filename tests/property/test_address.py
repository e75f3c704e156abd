"""Every address survives being written and read; no other text becomes one."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Invalid
from gateway.address import Address, ById, BySlug, parse_address, write_address

slugs = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
agent_ids = st.from_regex(r"agent_[a-z0-9]{12}", fullmatch=True)
addresses = st.one_of(agent_ids.map(ById), st.builds(BySlug, slugs, st.none() | slugs))


@given(addresses)
def test_an_address_survives_the_round_trip(address: Address) -> None:
    assert parse_address(write_address(address)) == address


@given(st.text(max_size=80))
def test_any_text_is_an_address_written_back_the_same_or_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except Invalid:
        return
    assert write_address(address) == text.replace("agt_", "agent_", 1)


@given(agent_ids)
def test_both_spellings_of_an_id_name_the_same_agent(agent_id: str) -> None:
    assert parse_address(agent_id.replace("agent_", "agt_", 1)) == parse_address(agent_id)
