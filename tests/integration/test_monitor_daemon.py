"""The daemon with a real broker, real files and real processes; the gateway alone is respx."""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
import respx

from contracts.records import JsonObject
from infra.clock import SystemClock, SystemIds
from infra.edge import EdgeFeed
from infra.embedded import EmbeddedNats, NatsEndpoint
from infra.gateway_client import GatewayClient
from infra.spawn import LocalPrograms
from infra.spool import JournalFolder, SpoolFolder
from monitor.configuration import Configuration
from monitor.daemon import Daemon
from monitor.ports import Box, Shelf
from monitor.session import Delivery, Refusal, SessionFolder
from tests.raw_broker import raw_client
from tests.stub_gateway import AGENT_ID, BASE_URL, SLUG, Live, StubGateway, Work, message_of

ECHO = """
import json, sys
print("noise")
print(json.dumps({"got": json.loads(sys.stdin.readline())["message"]}))
"""
DEADLINE_S = 20


def execution() -> str:
    return f"exec_{SystemIds().ulid()}"


@pytest.fixture
def stub() -> Iterator[StubGateway]:
    stub = StubGateway()
    with respx.mock(base_url=BASE_URL, assert_all_called=False) as mocked:
        mocked.route().mock(side_effect=stub.respond)
        yield stub


@asynccontextmanager
async def running(
    state_dir: Path,
    url: str,
    *,
    program: str | None = None,
    wait: bool = True,
    beat_every_s: float = 30.0,
    **changes: object,
) -> AsyncIterator[Daemon]:
    """A daemon for the stub's agent, ready; stopped at the end."""
    ready = anyio.Event()
    settings = settings_of(state_dir, url, program, changes).model_copy(update={"beat_every_s": beat_every_s})
    async with GatewayClient.open(BASE_URL, "key") as gateway, anyio.create_task_group() as tasks:
        daemon = Daemon(
            settings,
            gateway=gateway,
            pushes=EdgeFeed(url, name="test", retry_s=0.1),
            programs=LocalPrograms(state_dir / "work", term_grace_s=0.3),
            spool=SpoolFolder(state_dir),
            journal=JournalFolder(state_dir),
            clock=SystemClock(),
            ids=SystemIds(),
            base_env={"PATH": "/usr/bin:/bin", "SECRET": "not yours"},
            ready=ready.set,
        )
        tasks.start_soon(daemon.run)
        if wait:
            with anyio.fail_after(DEADLINE_S):
                await ready.wait()
        yield daemon
        tasks.cancel_scope.cancel()


def settings_of(state_dir: Path, url: str, program: str | None, changes: Mapping[str, object]) -> Configuration:
    agent: JsonObject = {"agent": SLUG}
    if program is not None:
        agent["background"] = {"argv": [sys.executable, "-c", program]} | dict(changes)
    return Configuration.model_validate(
        {
            "gateway_url": BASE_URL,
            "nats_url": url,
            "key": "key",
            "monitor_id": "test-host",
            "state_dir": state_dir,
            "poll_every_s": 0.5,
            "agents": [agent],
        }
    )


async def push(endpoint: NatsEndpoint, channel: str, execution_id: str, *, nonce: str | None = None) -> None:
    """Publish an envelope as the gateway does."""
    now = datetime.now(UTC)
    envelope = {
        "v": 1,
        "channel": channel,
        "agent_id": AGENT_ID,
        "execution_id": execution_id,
        "message_id": message_of(execution_id),
        "sent_at": now.isoformat(),
        "nonce": nonce,
        "claim_before": (now + timedelta(seconds=30)).isoformat() if channel == "live" else None,
    }
    client = await raw_client(endpoint.url)
    await client.publish(f"{channel}.{AGENT_ID}.{execution_id}", json.dumps(envelope).encode())
    await client.flush()
    await client.close()


async def until(condition: Callable[[], Any]) -> Any:
    """Wait for a condition and return what it said."""
    with anyio.fail_after(DEADLINE_S):
        while not (found := condition()):
            await anyio.sleep(0.02)
    return found


async def attached(state_dir: Path, label: str = "main") -> SessionFolder:
    session = SessionFolder(state_dir, SLUG, label)
    session.open()
    await session.wait_attached(DEADLINE_S)
    return session


async def first_offer(session: SessionFolder) -> Any:
    with anyio.fail_after(DEADLINE_S):
        return await anext(session.offers())


# --- live ----------------------------------------------------------------------------------------------------------


async def test_a_push_becomes_an_offer_a_claim_a_delivery_and_an_outcome(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name = execution()
    stub.live[name] = Live(nonce="proof")
    stub.poll_finds_work = False
    async with running(tmp_path, nats_server.edge_url):
        session = await attached(tmp_path)
        await push(nats_server, "live", name, nonce="proof")
        await push(nats_server, "live", name, nonce="proof")
        offer = await first_offer(session)
        session.claim(offer)
        answer = await session.wait_answer(name, DEADLINE_S)
        assert isinstance(answer, Delivery)
        assert answer.message["message"].startswith("line one")
        session.outcome(name, success=True, result={"answer": 42})
        assert await session.wait_posted(name, DEADLINE_S) is None
    outcome = stub.live[name].outcome
    assert outcome is not None
    assert (outcome["result"], outcome["executed_via"]) == ({"answer": 42}, "live")
    assert not JournalFolder(tmp_path).names(Shelf.CLAIMED)


async def test_a_lost_push_is_found_by_the_poll(tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway) -> None:
    name = execution()
    async with running(tmp_path, nats_server.edge_url):
        session = await attached(tmp_path)
        stub.live[name] = Live()
        assert (await first_offer(session)).execution_id == name


async def test_only_one_of_two_sessions_wins_and_the_other_is_told(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name = execution()
    async with running(tmp_path, nats_server.edge_url):
        sessions = [await attached(tmp_path, label) for label in ("main", "second")]
        stub.live[name] = Live()
        for session, offer in [(session, await first_offer(session)) for session in sessions]:
            session.claim(offer)
        answers = [await session.wait_answer(name, DEADLINE_S) for session in sessions]
    assert sorted(type(answer).__name__ for answer in answers) == ["Delivery", "Refusal"]
    assert {answer.code for answer in answers if isinstance(answer, Refusal)} <= {"already_claimed", "not_offered"}


async def test_a_wrong_token_is_refused_and_the_offer_stays(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name = execution()
    async with running(tmp_path, nats_server.edge_url):
        session = await attached(tmp_path)
        stub.live[name] = Live()
        offer = await first_offer(session)
        write(session, Box.CLAIMS, name, json.dumps({"execution_id": name, "session_token": "wrong"}))
        refused = await session.wait_answer(name, DEADLINE_S)
        assert isinstance(refused, Refusal)
        assert refused.code == "invalid_session_token"
        session.claim(offer)
        assert isinstance(await session.wait_answer(name, DEADLINE_S), Delivery)


@pytest.mark.parametrize(
    ("box", "text", "reason"),
    [
        (Box.CLAIMS, "{", "file_not_json"),
        (Box.CLAIMS, "[]", "file_not_json"),
        (Box.CLAIMS, '{"session_token": "x"}', "invalid_execution_id"),
        (Box.CLAIMS, '{"execution_id": "exec_other", "session_token": "x"}', "name_and_content_differ"),
        (Box.OUTCOMES, '{"success": true}', "not_claimed"),
    ],
)
async def test_a_file_nobody_can_use_is_put_aside_with_a_reason(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway, box: Box, text: str, reason: str
) -> None:
    name = execution()
    async with running(tmp_path, nats_server.edge_url):
        session = await attached(tmp_path)
        write(session, box, name, text)
        refused = await session.wait_answer(name, DEADLINE_S)
    assert isinstance(refused, Refusal)
    assert refused.message == reason
    assert (session.path / "bad" / f"{name}.json").exists()


@pytest.mark.parametrize(
    "text", ['{"success": "maybe"}', '{"success": true, "surprise": 1}', '{"result": NaN}', "null"]
)
async def test_a_malformed_outcome_can_be_corrected(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway, text: str
) -> None:
    name = execution()
    stub.live[name] = Live()
    async with running(tmp_path, nats_server.edge_url):
        session = await attached(tmp_path)
        session.claim(await first_offer(session))
        await session.wait_answer(name, DEADLINE_S)
        write(session, Box.OUTCOMES, name, text)
        assert isinstance(await session.wait_posted(name, DEADLINE_S), Refusal)
        session.outcome(name, success=False, error="could not")
        assert await session.wait_posted(name, DEADLINE_S) is None
    assert stub.live[name].outcome is not None


async def test_an_outcome_survives_an_outage_of_the_gateway_and_a_restart_of_the_monitor(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name = execution()
    stub.live[name] = Live()
    async with running(tmp_path, nats_server.edge_url):
        session = await attached(tmp_path)
        session.claim(await first_offer(session))
        await session.wait_answer(name, DEADLINE_S)
        stub.away = True
        session.outcome(name, success=True, result="kept")
        await until(lambda: JournalFolder(tmp_path).names(Shelf.OUTBOX))
    stub.away = False
    async with running(tmp_path, nats_server.edge_url):
        await until(lambda: stub.live[name].outcome)
        assert await session.wait_posted(name, DEADLINE_S) is None


async def test_a_claim_made_while_no_monitor_ran_is_finished_by_the_next_with_the_old_token(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name, token = execution(), "0" * 26 + "old"
    stub.live[name], stub.tokens["main"] = Live(), token
    session = SessionFolder(tmp_path, SLUG, "main")
    session.open()
    session.path.joinpath("session.json").write_text(json.dumps({"session_token": token}))
    write(session, Box.OFFERS, name, json.dumps({"execution_id": name, "message_id": "msg", "nonce": "n0nce"}))
    session.claim(session.offers_now()[0])
    async with running(tmp_path, nats_server.edge_url):
        assert isinstance(await session.wait_answer(name, DEADLINE_S), Delivery)
        await until(lambda: stub.tokens.get("main") not in (None, token))
        session.outcome(name, success=True)
        assert await session.wait_posted(name, DEADLINE_S) is None
    assert stub.live[name].outcome is not None
    assert stub.live[name].token == token


async def test_a_stop_while_the_gateway_answers_a_claim_does_not_lose_it(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name = execution()
    stub.live[name] = Live()
    async with running(tmp_path, nats_server.edge_url):
        session = await attached(tmp_path)
        offer = await first_offer(session)
        stub.slow_claims_s = 0.4
        session.claim(offer)
        await until(lambda: stub.live[name].token)
    assert isinstance(await session.wait_answer(name, DEADLINE_S), Delivery)


async def test_a_stale_heartbeat_is_reported_with_its_age_and_offers_stop(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    async with running(tmp_path, nats_server.edge_url):
        session = await attached(tmp_path)
        age(session, 500)
        await until(lambda: stub.ages.get("main", 0) >= 500)
        session.touch()
        await until(lambda: stub.ages["main"] < 5)


async def test_a_removed_folder_detaches_and_so_does_a_stop(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    async with running(tmp_path, nats_server.edge_url):
        first = await attached(tmp_path, "first")
        second = await attached(tmp_path, "second")
        await first.close()
        await until(lambda: "first" not in stub.tokens)
        assert "second" in stub.tokens
    assert not stub.tokens
    assert second.sidecar() is None


async def test_a_label_that_is_attached_already_is_taken_over_with_a_new_token(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    stub.tokens["main"] = "of a monitor that was killed"
    async with running(tmp_path, nats_server.edge_url):
        session = await attached(tmp_path)
        sidecar = session.sidecar()
        assert sidecar is not None
        assert sidecar["session_token"] == stub.tokens["main"]
        assert 26 + 32 <= len(sidecar["session_token"]) <= 80
        assert session.path.joinpath("session.json").stat().st_mode & 0o777 == 0o600


async def test_a_folder_made_anew_between_two_looks_gets_a_token_again(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    async with running(tmp_path, nats_server.edge_url):
        session = await attached(tmp_path)
        old = session.sidecar()
        await session.close()
        session.open()
        assert await session.wait_attached(DEADLINE_S) != old


async def delivered(session: SessionFolder) -> str:
    """The execution of the first offer, claimed and delivered."""
    offer = await first_offer(session)
    session.claim(offer)
    answer = await session.wait_answer(offer.execution_id, DEADLINE_S)
    assert isinstance(answer, Delivery)
    return answer.execution_id


async def test_what_a_session_says_of_its_turn_is_told_before_its_outcome(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name = execution()
    stub.live[name] = Live()
    stub.slow_contexts_s = 0.3
    async with running(tmp_path, nats_server.edge_url):
        session = await attached(tmp_path)
        assert await delivered(session) == name
        session.in_context(name)
        session.outcome(name, success=True)
        assert await session.wait_posted(name, DEADLINE_S) is None
        assert not list((session.path / Box.IN_CONTEXT).iterdir())
    assert stub.live[name].contexts == [{}]


async def test_what_a_session_says_while_the_gateway_is_away_is_told_afterwards(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name = execution()
    stub.live[name] = Live()
    async with running(tmp_path, nats_server.edge_url):
        session = await attached(tmp_path)
        await delivered(session)
        stub.away = True
        session.in_context(name)
        await until(lambda: f"/v1/executions/{name}/in-context" in stub.unheard)
        stub.away = False
        await until(lambda: stub.live[name].contexts)


async def test_a_session_cannot_speak_for_what_it_has_not_claimed(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name = execution()
    stub.live[name] = Live()
    async with running(tmp_path, nats_server.edge_url):
        session = await attached(tmp_path)
        await first_offer(session)
        session.in_context(name)
        await until(lambda: not list((session.path / Box.IN_CONTEXT).iterdir()))
    assert not stub.requests("POST", ".*/in-context")


# --- background ----------------------------------------------------------------------------------------------------


async def test_a_background_push_becomes_a_run_and_an_outcome(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name = execution()
    stub.poll_finds_work = False
    async with running(tmp_path, nats_server.edge_url, program=ECHO):
        stub.work[name] = Work()
        # Heard twice, as while credentials are renewed.
        await push(nats_server, "bg", name)
        await push(nats_server, "bg", name)
        outcome = await until(lambda: stub.work[name].outcome)
    assert stub.work[name].lease == 1
    assert outcome["result"] == {"got": "line one\nline two \u2603"}
    assert (outcome["success"], outcome["lease"], outcome["executed_via"]) == (True, 1, "bg")
    assert outcome["metadata"]["exit_code"] == 0
    assert stub.requests("POST", "/v1/hosts/heartbeat")[0] | {"monitor_version": ""} == {
        "host_id": "test-host",
        "agents": [AGENT_ID],
        "echoes": [],
        "monitor_version": "",
    }


async def test_a_program_that_has_read_its_message_has_it_in_context_under_its_lease(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name = execution()
    stub.work[name] = Work()
    stub.slow_contexts_s = 0.3
    async with running(tmp_path, nats_server.edge_url, program=ECHO):
        await until(lambda: stub.work[name].outcome)
    assert stub.work[name].contexts == [{"lease": 1}]


async def test_a_program_that_never_reads_its_message_has_nothing_in_context(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name = execution()
    stub.work[name] = Work()
    async with running(tmp_path, nats_server.edge_url, program="print(1)"):
        await until(lambda: stub.work[name].outcome)
    assert stub.work[name].contexts == []


async def test_no_outcome_waits_long_for_a_gateway_that_does_not_answer_the_word_before_it(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name, live = execution(), execution()
    stub.slow_contexts_s = 10 * DEADLINE_S
    stub.work[name], stub.live[live] = Work(), Live()
    async with running(tmp_path, nats_server.edge_url, program=ECHO):
        session = await attached(tmp_path)
        await delivered(session)
        session.in_context(live)
        session.outcome(live, success=True)
        assert await session.wait_posted(live, DEADLINE_S) is None
        await until(lambda: stub.work[name].outcome)
    assert stub.work[name].contexts == stub.live[live].contexts == []


async def test_a_gateway_that_knows_no_contexts_gets_its_outcomes_all_the_same(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name, live = execution(), execution()
    stub.knows_contexts = False
    stub.work[name], stub.live[live] = Work(), Live()
    async with running(tmp_path, nats_server.edge_url, program=ECHO):
        session = await attached(tmp_path)
        await delivered(session)
        session.in_context(live)
        session.outcome(live, success=True)
        assert await session.wait_posted(live, DEADLINE_S) is None
        await until(lambda: stub.work[name].outcome)
    assert stub.work[name].contexts == stub.live[live].contexts == []


async def test_everything_goes_on_after_a_restart_of_the_broker(
    tmp_path: Path, own_nats: EmbeddedNats, stub: StubGateway
) -> None:
    endpoint = own_nats.endpoint
    stub.poll_finds_work = False
    live, work = execution(), execution()
    async with running(tmp_path, endpoint.edge_url, program=ECHO):
        session = await attached(tmp_path)
        own_nats.kill()
        await own_nats.start()
        stub.live[live], stub.work[work] = Live(), Work()

        async def push_until(channel: str, name: str, seen: Callable[[], Any]) -> None:
            while not seen():
                await push(endpoint, channel, name, nonce="n0nce")
                await anyio.sleep(0.1)

        with anyio.fail_after(DEADLINE_S):
            await push_until("live", live, session.offers_now)
            await push_until("bg", work, lambda: stub.work[work].outcome)


async def test_a_failing_program_is_released_with_its_last_words(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name = execution()
    stub.work[name] = Work()
    program = "import sys; sys.stderr.write('x' * 5000 + ' the end'); sys.exit(3)"
    async with running(tmp_path, nats_server.edge_url, program=program):
        await until(lambda: len(stub.work[name].released) > 1)
    released = stub.work[name].released[0]
    assert released["reason"] == "exit_nonzero"
    assert released["detail"].startswith("exit 3: ")
    assert released["detail"].endswith("the end")
    assert len(released["detail"]) <= 2000


async def test_no_more_runs_at_once_than_allowed_and_the_rest_follows_at_once(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    names = [execution() for _ in range(4)]
    stub.work |= {name: Work() for name in names}
    highest = 0
    gate = tmp_path / "gate"
    program = f"import time, pathlib\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)"
    async with running(tmp_path, nats_server.edge_url, program=program, concurrency=2):
        await until(lambda: sum(work.leased for work in stub.work.values()) == 2)
        for name in names:
            await push(nats_server, "bg", name)
        highest = sum(work.leased for work in stub.work.values())
        gate.touch()
        await until(lambda: all(work.outcome for work in stub.work.values()))
    assert highest == 2


async def test_a_lost_lease_kills_the_child_and_nothing_is_reported(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name, pid_file = execution(), tmp_path / "pid"
    stub.work[name] = Work()
    async with running(tmp_path, nats_server.edge_url, program=sleeper(pid_file), lease_s=10) as daemon:
        shorten_leases(daemon, 0.6)
        await until(pid_file.exists)
        stub.refuse_extensions = True
        await until(lambda: not alive(int(pid_file.read_text() or 0)))
        stub.poll_finds_work = False
        await until(lambda: not JournalFolder(tmp_path).names(Shelf.RUNS))
    assert stub.work[name].outcome is None
    assert not stub.work[name].released


async def test_leases_are_extended_while_the_child_works(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name, pid_file = execution(), tmp_path / "pid"
    async with running(tmp_path, nats_server.edge_url, program=sleeper(pid_file)) as daemon:
        shorten_leases(daemon, 0.6)
        stub.work[name] = Work()
        await until(lambda: stub.work[name].extended >= 3)


async def test_a_stop_kills_the_child_and_gives_the_lease_back_within_five_seconds(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name, pid_file = execution(), tmp_path / "pid"
    stub.work[name] = Work()
    async with running(tmp_path, nats_server.edge_url, program=sleeper(pid_file, deaf=True)):
        await until(lambda: pid_file.exists() and pid_file.read_text())
        pid, began_at = int(pid_file.read_text()), anyio.current_time()
    assert anyio.current_time() - began_at < 5
    assert not alive(pid)
    assert [body["reason"] for body in stub.work[name].released] == ["monitor_stopped"]


async def test_an_outage_of_the_gateway_does_not_lose_a_finished_run(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    name, pid_file = execution(), tmp_path / "pid"
    stub.work[name] = Work()
    gate = tmp_path / "gate"
    program = (
        f"import time, pathlib\npathlib.Path({str(pid_file)!r}).touch()\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)\nprint('[1, 2]')"
    )
    async with running(tmp_path, nats_server.edge_url, program=program):
        await until(pid_file.exists)
        stub.away = True
        gate.touch()
        await until(lambda: not list((tmp_path / "work").iterdir()))
        stub.away = False
        assert (await until(lambda: stub.work[name].outcome))["result"] == [1, 2]


# --- echoes --------------------------------------------------------------------------------------------------------


def echoes_told(stub: StubGateway) -> list[JsonObject]:
    """What was said of echoes so far, over all calls."""
    return [each for body in stub.requests("POST", "/v1/hosts/echo") for each in body["echoes"]]


async def ask(endpoint: NatsEndpoint, *names: str) -> None:
    """Publish echoes of the stub's agent as the gateway does."""
    client = await raw_client(endpoint.url)
    for name in names:
        echo = {"v": 1, "kind": "echo", "agent_id": AGENT_ID, "echo_id": name}
        await client.publish(f"live.{AGENT_ID}.{name}", json.dumps(echo).encode())
    await client.close()


async def test_an_echo_is_answered_and_asked_for_whenever_the_subscription_stands_anew(
    tmp_path: Path, own_nats: EmbeddedNats, stub: StubGateway
) -> None:
    name = f"echo_{SystemIds().ulid()}"
    async with running(tmp_path, own_nats.endpoint.edge_url):
        await attached(tmp_path)
        await ask(own_nats.endpoint, "echo_1", name)
        assert await until(lambda: echoes_told(stub)) == [{"agent_id": AGENT_ID, "echo_id": name}]
        own_nats.kill()
        await own_nats.start()
        await until(lambda: len(echoes_told(stub)) == 2)
        assert echoes_told(stub)[1] == {"agent_id": AGENT_ID}


async def test_a_host_vouches_only_for_agents_whose_sessions_it_has(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    first, second = (f"echo_{SystemIds().ulid()}" for _ in range(2))
    async with running(tmp_path, nats_server.edge_url):
        await ask(nats_server, first)
        await attached(tmp_path)
        await ask(nats_server, second)
        assert await until(lambda: echoes_told(stub)) == [{"agent_id": AGENT_ID, "echo_id": second}]


async def test_a_hosts_beat_names_the_agents_with_sessions_and_stays_away_while_there_are_none(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    async with running(tmp_path, nats_server.edge_url, beat_every_s=0.1):
        await attached(tmp_path)
        [beat, *_] = await until(lambda: stub.requests("POST", "/v1/hosts/heartbeat"))
    assert (beat["agents"], beat["echoes"]) == ([], [AGENT_ID])


# --- builders ------------------------------------------------------------------------------------------------------


def sleeper(pid_file: Path, *, deaf: bool = False) -> str:
    """A program that says its number and works for a minute."""
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if deaf else ""
    return f"import os, signal, time; {ignore}open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"


def shorten_leases(daemon: Daemon, lease_s: float) -> None:
    """Below what a configuration may say, so that a test need not last."""
    for background in daemon._background.values():
        background._settings = background._settings.model_copy(update={"lease_s": lease_s})


def alive(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/stat").read_text().split(") ")[1].startswith("Z")
    except FileNotFoundError:
        return False


def age(session: SessionFolder, seconds: float) -> None:
    then = datetime.now(UTC).timestamp() - seconds
    os.utime(session.path / "heartbeat", (then, then))


def write(session: SessionFolder, box: Box, name: str, text: str) -> None:
    """What a careless session would write, in one step."""
    folder = session.path / box
    folder.mkdir(mode=0o700, exist_ok=True)
    draft = folder / ".draft"
    draft.write_text(text)
    draft.rename(folder / f"{name}.json")
