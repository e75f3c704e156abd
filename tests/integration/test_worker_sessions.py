"""Sessions of workers over HTTP: registered, beaten for singly and together, ended for good, and seen as presence."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anyio
import pytest

from contracts.ids import agent_of_session, session_id
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.builders import NOW
from tests.http_rig import Caller, Json, Rig, code_of, running_rig
from tests.installation import MovableClock

AGENTS = "/v1/projects/max/agents"
FLAT = f"{AGENTS}/sessions"
SESSIONS = f"{AGENTS}/doc/sessions"


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
async def rig(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str, clock: MovableClock
) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix, clock=clock) as running:
        account = await running.max.post("/v1/projects/max/service-accounts", {"name": "workers"}, status=201)
        made = {"service_account_id": account["id"], "name": "doc"}
        await running.max.post(AGENTS, made, status=201)
        yield running


async def register(caller: Caller, transport: str = "sse", **more: Any) -> Json:
    return await caller.post(SESSIONS, {"transport": transport, **more}, status=201)


async def beat(caller: Caller, session: Json) -> Json:
    return await caller.post(f"{FLAT}/{session['id']}/heartbeat")


async def presence(caller: Caller) -> str:
    word: str = (await caller.get(f"{AGENTS}/doc"))["presence"]
    return word


# --- one session ----------------------------------------------------------------------------------------------------


async def test_a_session_is_connected_and_its_agent_online_right_after_registering(rig: Rig) -> None:
    assert await presence(rig.max) == "offline"
    session = await register(rig.max, metadata={"hostname": "worker-1"})

    assert {key: session[key] for key in ("status", "transport", "metadata", "disconnected_at")} == {
        "status": "connected",
        "transport": "sse",
        "metadata": {"hostname": "worker-1"},
        "disconnected_at": None,
    }
    assert session["connected_at"] == session["last_seen_at"] == session["created_at"] == session["updated_at"]
    assert (session["overdue_after_seconds"], session["stale_after_seconds"]) == (60, 90)
    assert session["heartbeat_interval_seconds"] == 30
    assert 9 <= session["next_beat_after_seconds"] <= 10
    assert agent_of_session(session["id"]) == session["agent_id"]
    assert await presence(rig.max) == "online"


async def test_a_session_is_the_same_under_each_of_its_paths(rig: Rig) -> None:
    session = await register(rig.max)
    paths = [f"{FLAT}/{session['id']}", f"{SESSIONS}/{session['id']}", f"{AGENTS}/doc/presence/{session['id']}"]

    shown = [await rig.max.get(path) for path in paths]
    beats = [await rig.max.post(f"{path}/heartbeat") for path in paths]
    ended = [await rig.max.post(f"{path}/disconnect") for path in paths]

    assert [{**each, "next_beat_after_seconds": 0} for each in shown[1:]] == [
        {**shown[0], "next_beat_after_seconds": 0}
    ] * 2
    assert {each["status"] for each in beats} == {"connected"}
    assert {each["status"] for each in ended} == {"disconnected"}
    assert await rig.max.post(f"{AGENTS}/doc/presence", {"transport": "polling"}, status=201)


@pytest.mark.parametrize(
    ("silent_s", "status", "overdue", "word"),
    [(59.9, "connected", False, "online"), (60.1, "connected", True, "stale"), (90.1, "stale", False, "offline")],
)
async def test_silence_makes_a_session_overdue_and_then_stale_for_good(
    rig: Rig, clock: MovableClock, silent_s: float, status: str, overdue: bool, word: str
) -> None:
    session = await register(rig.max)
    clock.move(seconds=200)
    session = await register(rig.max)
    clock.move(seconds=silent_s)

    shown = await rig.max.get(f"{FLAT}/{session['id']}")

    assert (shown["status"], shown["overdue"], await presence(rig.max)) == (status, overdue, word)
    assert (await rig.max.get("/v1/agents/doc"))["presence"] == word
    assert (await rig.max.get("/v1/agents/doc/presence"))["presence"] == word


async def test_a_beat_is_answered_with_the_instant_it_counts_at_and_moves_nothing_else(
    rig: Rig, clock: MovableClock
) -> None:
    session = await register(rig.max)
    clock.move(seconds=40)
    first = await beat(rig.max, session)
    clock.move(seconds=0.5)
    second = await beat(rig.max, session)
    clock.move(seconds=89)

    assert first["last_seen_at"] == second["last_seen_at"] > session["last_seen_at"]
    assert first["updated_at"] == session["updated_at"]
    assert 27 <= first["next_beat_after_seconds"] <= 30
    assert (await rig.max.get(f"{FLAT}/{session['id']}"))["status"] == "connected"
    agent = await rig.max.get(f"{AGENTS}/doc")
    assert agent["updated_at"] == agent["created_at"]


async def test_a_session_that_has_ended_does_not_come_back(rig: Rig, clock: MovableClock) -> None:
    gone, late = await register(rig.max), await register(rig.max)
    await rig.max.post(f"{FLAT}/{gone['id']}/disconnect")
    clock.move(seconds=91)

    for session, status in ((gone, "disconnected"), (late, "stale")):
        answer = await rig.max.call("POST", f"{FLAT}/{session['id']}/heartbeat")
        assert (answer.status_code, code_of(answer)) == (409, "session_ended")
        assert answer.json()["error"]["session_status"] == status
        assert (await rig.max.get(f"{FLAT}/{session['id']}"))["status"] == status
    assert await presence(rig.max) == "offline"


async def test_a_fleet_that_starts_at_once_registers_whole(rig: Rig) -> None:
    fleet: list[str] = []

    async def start() -> None:
        fleet.append((await register(rig.max))["id"])

    async with anyio.create_task_group() as group:
        for _ in range(40):
            group.start_soon(start)
    assert len(set(fleet)) == 40
    kept = (await rig.max.get(SESSIONS, status="connected"))["items"]
    assert len(kept) == 20


async def test_of_those_who_end_a_session_at_once_one_does_and_it_is_told_once(rig: Rig) -> None:
    session = await register(rig.max)

    async def end() -> None:
        assert (await rig.max.post(f"{FLAT}/{session['id']}/disconnect"))["status"] == "disconnected"

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(end)
    told = await rig.max.get("/v1/events", type="session.detached")
    assert [each["subject"] for each in told["events"]] == [session["id"]]


async def test_disconnecting_again_changes_nothing_and_stale_stays_stale(rig: Rig, clock: MovableClock) -> None:
    session, late = await register(rig.max), await register(rig.max)
    clock.move(seconds=5)
    first = await rig.max.post(f"{FLAT}/{session['id']}/disconnect")
    clock.move(seconds=100)
    again = await rig.max.post(f"{FLAT}/{session['id']}/disconnect")
    stale = await rig.max.post(f"{FLAT}/{late['id']}/disconnect")

    assert first["disconnected_at"] == first["updated_at"] == again["disconnected_at"] is not None
    assert (stale["status"], stale["disconnected_at"], stale["next_beat_after_seconds"]) == ("stale", None, None)


async def test_a_session_may_choose_its_thresholds_within_bounds(rig: Rig, clock: MovableClock) -> None:
    session = await register(rig.max, overdue_after_seconds=10, stale_after_seconds=20)
    assert session["heartbeat_interval_seconds"] == 5
    clock.move(seconds=11)
    assert await presence(rig.max) == "stale"
    clock.move(seconds=10)
    assert await presence(rig.max) == "offline"
    for wrong in (
        {"overdue_after_seconds": 4},
        {"stale_after_seconds": 60},
        {"overdue_after_seconds": 90, "stale_after_seconds": 90},
        {"stale_after_seconds": 100_000},
    ):
        answer = await rig.max.call("POST", SESSIONS, json={"transport": "sse", **wrong})
        assert (answer.status_code, code_of(answer)) == (422, "out_of_range")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "required"),
        ({"transport": ""}, "too_short"),
        ({"transport": "live"}, "reserved_transport"),
        ({"transport": 1}, "string_type"),
        ({"transport": "s" * 65}, "too_long"),
        ({"transport": "sse", "metadata": {"a": "x" * 11_000}}, "metadata_too_large"),
    ],
)
async def test_what_is_no_session_is_refused_and_nothing_is_stored(rig: Rig, body: Json, code: str) -> None:
    answer = await rig.max.call("POST", SESSIONS, json=body)
    assert code_of(answer) in (code, "invalid_type")
    assert (await rig.max.get(SESSIONS))["items"] == []


async def test_an_inactive_agent_may_be_as_present_as_any(rig: Rig) -> None:
    await rig.max.patch(f"{AGENTS}/doc", {"status": "inactive"})
    session = await register(rig.max)
    assert (await beat(rig.max, session))["status"] == "connected"
    assert await presence(rig.max) == "online"


# --- many sessions --------------------------------------------------------------------------------------------------


async def test_sessions_are_listed_newest_first_filtered_and_in_pages(rig: Rig, clock: MovableClock) -> None:
    made = []
    for number in range(5):
        clock.move(seconds=1)
        made.append(await register(rig.max, "sse" if number % 2 else "polling"))
    await rig.max.post(f"{FLAT}/{made[3]['id']}/disconnect")
    newest_first = [each["id"] for each in reversed(made)]

    page = await rig.max.get(SESSIONS, limit=2)
    found = [*page["items"]]
    while page["has_more"]:
        page = await rig.max.get(SESSIONS, limit=2, cursor=page["next_cursor"])
        found += page["items"]

    assert [each["id"] for each in found] == newest_first
    connected = await rig.max.get(SESSIONS, status="connected", transport="sse")
    assert [each["id"] for each in connected["items"]] == [made[1]["id"]]
    assert [each["id"] for each in (await rig.max.get(SESSIONS, status="disconnected"))["items"]] == [made[3]["id"]]
    strange = await rig.max.call("GET", SESSIONS, params={"cursor": "x"})
    assert code_of(strange) == "invalid_cursor"


async def test_fifty_registrations_hide_nobody_who_beats_and_twenty_stay(rig: Rig, clock: MovableClock) -> None:
    healthy = await register(rig.max)
    clock.move(seconds=2)
    await beat(rig.max, healthy)
    for _ in range(50):
        clock.move(seconds=0.5)
        await register(rig.max, "crashing")

    connected = (await rig.max.get(SESSIONS, status="connected", limit=200))["items"]

    assert len(connected) == 20
    assert (await beat(rig.max, healthy))["status"] == "connected"
    assert await presence(rig.max) == "online"
    events = (await rig.max.get("/v1/events", limit=200))["events"]
    assert sum(each["type"] == "session.detached" for each in events) == 31


async def test_one_beat_covers_many_sessions_and_tells_each_apart(rig: Rig, clock: MovableClock) -> None:
    fresh, old, gone = [await register(rig.max) for _ in range(3)]
    await rig.max.session("doc", "live")
    [live] = (await rig.max.get("/v1/agents/doc"))["live_sessions"]
    await rig.max.post(f"{FLAT}/{gone['id']}/disconnect")
    clock.move(seconds=91)
    late = old
    fresh = await register(rig.max)
    clock.move(seconds=70)
    absent = session_id(fresh["agent_id"], clock.now(), 1)
    ids = [fresh["id"], late["id"], gone["id"], live["id"], absent, "sess_nothing", "x"]

    answer = await rig.max.post("/v1/sessions/heartbeat", {"sessions": [{"session_id": each} for each in ids]})
    foreign = await rig.eve.post("/v1/sessions/heartbeat", {"sessions": [{"session_id": fresh["id"]}]})

    assert [each["session_id"] for each in answer["sessions"]] == ids
    statuses = ["connected", "stale", "disconnected", "connected", "unknown", "unknown", "unknown"]
    assert [each["status"] for each in answer["sessions"]] == statuses
    assert 27 <= answer["next_beat_after_seconds"] <= 30
    assert foreign == {
        "sessions": [{"session_id": fresh["id"], "status": "unknown", "last_seen_at": None}],
        "next_beat_after_seconds": None,
    }
    assert await presence(rig.max) == "online"


async def test_a_beat_may_say_that_it_is_old(rig: Rig, clock: MovableClock) -> None:
    session = await register(rig.max)
    clock.move(seconds=2)
    said = {"sessions": [{"session_id": session["id"], "age_s": 65}]}
    assert (await rig.max.post("/v1/sessions/heartbeat", said))["sessions"][0]["status"] == "connected"
    assert await presence(rig.max) == "stale"


async def test_one_beat_for_many_sessions_looks_up_no_more_than_their_agents(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = await register(rig.max)
    made = agent_of_session(own["id"])
    assert made is not None
    forged = [session_id(made, NOW, chance) for chance in range(200)]
    strangers = [session_id(f"agent_{number:012}", NOW, 0) for number in range(200)]
    store = rig.gateway.parts.store
    read: list[str] = []

    async def get(key: str, kind: type[Any], *, fresh: bool = False, by: Any = store.get) -> Any:
        read.append(key)
        return await by(key, kind, fresh=fresh)

    monkeypatch.setattr(store, "get", get)
    said = [{"session_id": each} for each in (own["id"], *forged, *strangers)]
    told = (await rig.max.post("/v1/sessions/heartbeat", {"sessions": said}))["sessions"]
    assert [each["status"] for each in told] == ["connected", *["unknown"] * 400]
    assert len(read) < 10


async def test_more_than_a_thousand_sessions_are_refused_in_one_beat(rig: Rig) -> None:
    session = await register(rig.max)
    many = [{"session_id": session["id"]}] * 1_001
    answer = await rig.max.call("POST", "/v1/sessions/heartbeat", json={"sessions": many})
    assert code_of(answer) == "too_long"
    assert len((await rig.max.post("/v1/sessions/heartbeat", {"sessions": many[:1_000]}))["sessions"]) == 1_000


# --- whose they are -------------------------------------------------------------------------------------------------


async def test_somebody_elses_session_is_as_absent_as_none_at_all(rig: Rig, clock: MovableClock) -> None:
    session = await register(rig.max)
    none = session_id(session["agent_id"], clock.now() + timedelta(seconds=1), 1)
    bodies = []
    for project, named in (("eve", session["id"]), ("eve", none), ("eve", "sess_x")):
        for method, more in (("GET", ""), ("POST", "/heartbeat"), ("POST", "/disconnect")):
            answer = await rig.eve.call(method, f"/v1/projects/{project}/agents/sessions/{named}{more}")
            assert (answer.status_code, code_of(answer)) == (404, "session_not_found")
            bodies.append(answer.text)
    assert len(set(bodies)) == 1
    foreign = await rig.eve.call("GET", f"{FLAT}/{session['id']}")
    assert code_of(foreign) == "project_not_found"
    other = await rig.max.agent("other")
    elsewhere = await rig.max.call("GET", f"{AGENTS}/{other['id']}/sessions/{session['id']}")
    assert (elsewhere.status_code, code_of(elsewhere)) == (404, "session_not_found")


async def test_deleting_an_agent_ends_its_sessions(rig: Rig) -> None:
    session = await register(rig.max)
    await rig.max.delete(f"{AGENTS}/doc", status=204)
    answer = await rig.max.call("POST", f"{FLAT}/{session['id']}/heartbeat")
    assert (answer.status_code, code_of(answer)) == (404, "session_not_found")
    many = await rig.max.post("/v1/sessions/heartbeat", {"sessions": [{"session_id": session["id"]}]})
    assert many["sessions"][0]["status"] == "unknown"


# --- beside live sessions -------------------------------------------------------------------------------------------


async def test_a_worker_counts_as_present_and_nothing_is_pushed_to_it(rig: Rig) -> None:
    await rig.max.agent("mac", "live", "bg")
    await rig.max.post(f"{AGENTS}/mac/sessions", {"transport": "sse"}, status=201)

    sent = await rig.max.send("mac", delivery_mode="live")
    shown = await rig.max.get("/v1/agents/mac")

    assert sent["effective_delivery_mode"] == "bg"
    assert [each["reason"] for each in sent["trace"] if each["gate"] == "session_attached"] == ["no_session_attached"]
    assert (shown["presence"], shown["live_sessions"]) == ("online", [])
    assert (await rig.max.get("/v1/agents/mac/presence"))["derived_status"] == "online"
    assert (await rig.max.get("/v1/agents/mac/live-sessions"))["live_sessions"] == []


async def test_a_live_session_is_seen_at_the_other_door_and_stale_after_a_day(rig: Rig, clock: MovableClock) -> None:
    await rig.max.agent("mac", "live", "bg")
    live = await rig.max.session("mac")
    [seen] = (await rig.max.get(f"{AGENTS}/mac/sessions"))["items"]
    assert (seen["id"], seen["transport"], seen["overdue_after_seconds"]) == (live["id"], "live", 120)
    assert live["status"] == "connected"
    clock.move(seconds=86_401)

    beat = await rig.max.call("POST", "/v1/agents/mac/live-sessions/main/heartbeat")
    sent = await rig.max.send("mac", delivery_mode="live")
    again = await rig.max.session("mac")

    assert (beat.status_code, code_of(beat)) == (404, "live_session_not_found")
    assert sent["effective_delivery_mode"] == "bg"
    assert again["id"] != live["id"]
    assert [each["status"] for each in (await rig.max.get(f"{AGENTS}/mac/sessions"))["items"]] == ["connected", "stale"]


async def test_a_live_session_whose_file_is_older_than_a_day_stays_attached_while_it_is_beaten_for(
    rig: Rig, clock: MovableClock
) -> None:
    await rig.max.agent("mac", "live", "bg")
    await rig.max.session("mac")
    for _ in range(3):
        clock.move(seconds=30)
        shown = await rig.max.post("/v1/agents/mac/live-sessions/main/heartbeat", {"age_s": 86_400})
        assert (shown["status"], shown["attached"]) == ("connected", True)
    assert (await rig.max.get("/v1/agents/mac"))["presence"] == "stale"


async def test_a_live_session_past_its_deadline_claims_nothing(rig: Rig, clock: MovableClock) -> None:
    await rig.max.agent("mac", "live", "bg")
    gone = await rig.max.session("mac", "gone")
    clock.move(seconds=86_401)
    fresh = await rig.max.session("mac", "fresh")
    sent = await rig.max.send("mac", delivery_mode="live")
    path = f"/v1/executions/{sent['execution_id']}/live-claim"

    late = await rig.max.call("POST", path, json={"session_token": gone["session_token"]})
    await rig.max.post(path, {"session_token": fresh["session_token"]})

    assert (late.status_code, code_of(late)) == (403, "invalid_session_token")
    assert (await rig.max.get(f"/v1/messages/{sent['id']}"))["state"] == "claimed"
