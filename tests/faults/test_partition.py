"""A monitor on a host whose cable is pulled: no connection breaks, nothing is said, and nothing is lost."""

from pathlib import Path

import anyio
import pytest

from monitor.session import SessionFolder
from tests.faults.test_monitor_deaths import is_not_online, is_online, until
from tests.network_namespaces import NEEDS, Elsewhere, can_be_made, host
from tests.program_caller import PATIENCE_S
from tests.programs import Programs
from tests.tcp_way import way_to

KNOWN_WITHIN_S = 15.0
BACK_WITHIN_S = 30.0
"""Monitors look for a lost broker again within ten seconds, and their calls over HTTPS are given up after ten."""
HANDLER = """
import json, os, sys
message = json.loads(sys.stdin.readline())
with open({log!r}, "a") as log:
    log.write(message["message"] + "\\n")
print(json.dumps({{"done": message["message"]}}))
"""


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    """Before anything is started: where there are none, nothing is."""
    if not can_be_made():
        pytest.skip(NEEDS)


async def test_a_pulled_cable_is_known_in_time_loses_nothing_and_heals_by_itself(
    post: Programs, tmp_path: Path
) -> None:
    log = tmp_path / "done"
    agent = await post.agent("live", "bg")
    with host() as far:
        async with (
            way_to(post.gateway_urls[0], host=far.us) as (_, gateway_url),
            way_to(f"nats://127.0.0.1:{post.nats.port}", host=far.us) as (_, nats_url),
        ):
            elsewhere = Elsewhere(command=far.command, gateway_url=gateway_url, nats_url=nats_url)
            await post.start_monitor(agent, handler=HANDLER.format(log=str(log)), elsewhere=elsewhere)
            session = SessionFolder(post.state_dir, agent["slug"], "main")
            session.open()
            await session.wait_attached(PATIENCE_S)
            await until(post, agent, is_online, PATIENCE_S)
            await settled(post, agent, "before", log)

            far.pull()
            await until(post, agent, is_not_online, KNOWN_WITHIN_S)
            sent = [await post.send(agent, "bg", message=f"meanwhile {number}") for number in range(5)]

            far.put_back()
            session.touch()
            await until(post, agent, is_online, BACK_WITHIN_S)
            for each in sent:
                await delivered(post, each["id"])
            await post.stop_monitor()
    assert sorted(log.read_text().splitlines()) == ["before", *(f"meanwhile {number}" for number in range(5))]
    await post.assert_whole(sent)


async def settled(post: Programs, agent: dict[str, str], message: str, log: Path) -> None:
    await delivered(post, (await post.send(agent, "bg", message=message))["id"])
    assert log.read_text() == f"{message}\n"


async def delivered(post: Programs, message_id: str) -> None:
    with anyio.fail_after(BACK_WITHIN_S):
        while (await post.get(f"/v1/messages/{message_id}"))["state"] != "delivered":
            await anyio.sleep(0.1)
