"""The real clock and the real ids."""

from datetime import UTC

from contracts.ids import canonical_agent_id, message_id, ulid_of_message
from infra.clock import SystemClock, SystemIds


def test_now_is_aware_and_in_utc() -> None:
    assert SystemClock().now().tzinfo is UTC


def test_ids_have_their_shape_and_never_repeat() -> None:
    ids = SystemIds()
    ulids = [ids.ulid() for _ in range(1_000)]
    agents = [ids.agent() for _ in range(1_000)]

    assert all(ulid_of_message(message_id(ulid)) == ulid for ulid in ulids)
    assert all(canonical_agent_id(agent) == agent for agent in agents)
    assert len(set(ulids)) == len(set(agents)) == 1_000
    assert [ulid[:10] for ulid in ulids] == sorted(ulid[:10] for ulid in ulids)


def test_secrets_are_as_long_as_asked_for() -> None:
    assert len({SystemIds().secret(32) for _ in range(10)}) == 10
