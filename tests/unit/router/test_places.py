"""Places for deliveries under way: a share for each owner and host, and nobody waits behind a neighbour's share."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from router.places import PlaceLimits, Places, host_of

LIMITS = PlaceLimits(in_all=4, per_owner=3, per_host=2)


async def has_room(places: Places, owner: str, host: str) -> bool:
    """Whether a place is there at once; it is taken if so."""
    with anyio.move_on_after(0.01) as scope:
        await places.take(owner, host)
    return not scope.cancelled_caught


async def test_each_limit_holds_by_itself() -> None:
    places = Places(LIMITS)
    taken = [await has_room(places, "max", "a") for _ in range(3)]
    taken += [await has_room(places, "max", "b") for _ in range(2)]
    taken += [await has_room(places, "eve", "c") for _ in range(2)]

    assert taken == [True, True, False, True, False, True, False]
    assert places.taken == 4


async def test_a_freed_place_goes_to_whoever_waits_longest_and_fits() -> None:
    places, served = Places(LIMITS), []

    async def wait(owner: str, host: str) -> None:
        await places.take(owner, host)
        served.append((owner, host))

    for host in ("a", "a", "b"):
        await places.take("max", host)
    async with anyio.create_task_group() as group:
        group.start_soon(wait, "max", "a")
        await checkpoint()
        group.start_soon(wait, "eve", "c")
        await checkpoint()
        await checkpoint()
        assert served == [("eve", "c")]
        places.free("max", "a")
    assert served == [("eve", "c"), ("max", "a")]
    assert places.taken == 4


async def test_whoever_gives_up_waiting_leaves_no_trace() -> None:
    places = Places(PlaceLimits(in_all=1, per_owner=1, per_host=1))
    await places.take("max", "a")
    assert not await has_room(places, "eve", "b")
    places.free("max", "a")
    assert places.taken == 0
    assert await has_room(places, "eve", "b")


async def test_a_place_is_freed_when_its_block_fails() -> None:
    places = Places(LIMITS)
    with pytest.raises(RuntimeError):
        async with places.place("max", "a"):
            raise RuntimeError
    assert places.taken == 0


@pytest.mark.parametrize(
    "url",
    ["https://Hooks.Example/x", "https://hooks.example:443/y?z", "https://hooks.example./", "HTTPS://HOOKS.EXAMPLE"],
)
def test_a_host_is_the_same_however_it_is_spelled(url: str) -> None:
    assert host_of(url) == "hooks.example:443"


def test_another_port_is_another_host() -> None:
    assert host_of("http://[::1]:3000/hook") == "::1:3000"
    assert host_of("http://hooks.example/") == "hooks.example:80"
