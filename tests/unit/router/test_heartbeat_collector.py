"""Heartbeats collected: the newest wins, who holds what is told when it changes, and memory is bounded."""

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry

from contracts.errors import Unavailable
from contracts.heartbeats import MESSAGE_MAX_BYTES, Pulse, beat_proof, render_beats
from router.heartbeat_collector import TOLD_AGAIN_AFTER_MS, HeartbeatCollector, HeartbeatMetrics
from router.heartbeats import epoch_ms
from router.ports import HeldSessions
from tests.installation import MovableClock

SECRET = b"s" * 32
SESSIONS = [f"sess_01kaj{number:021d}" for number in range(5)]


class Notes:
    """Remembers what it was told; away while `is_away`."""

    def __init__(self) -> None:
        self.is_away = False
        self.seen: dict[str, int] = {}
        self.held: list[HeldSessions] = []

    async def note(self, seen: Mapping[str, int], held: Iterable[HeldSessions]) -> None:
        if self.is_away:
            raise Unavailable("store_unavailable", "away")
        self.seen |= seen
        self.held += held

    async def end(self, monitor_id: str) -> Sequence[str]:
        raise AssertionError("the collector ends nobody")


class Rig:
    def __init__(self, **limits: int) -> None:
        self.notes, self.clock, self.registry = Notes(), MovableClock(), CollectorRegistry()
        self.collector = HeartbeatCollector(
            notes=self.notes, secret=SECRET, clock=self.clock, metrics=HeartbeatMetrics(self.registry), **limits
        )

    def beat(self, *sessions: str, age_s: float = 0.0, monitor_id: str = "mac-1") -> None:
        pulses = [Pulse(session_id=each, proof=beat_proof(SECRET, each, monitor_id), age_s=age_s) for each in sessions]
        for message in render_beats(pulses):
            self.collector.hear(f"hb.{monitor_id}", message)

    def dropped(self, reason: str) -> float:
        return self.registry.get_sample_value("postroom_heartbeats_dropped_total", {"reason": reason}) or 0.0


async def test_the_last_word_on_a_session_counts_although_it_may_be_older() -> None:
    rig = Rig()
    rig.beat(*SESSIONS[:2])
    rig.beat(SESSIONS[0], age_s=50)
    await rig.collector.flush()
    now_ms = epoch_ms(rig.clock.now())
    assert now_ms - 51_000 < rig.notes.seen[SESSIONS[0]] <= now_ms - 50_000
    assert now_ms - 1_000 < rig.notes.seen[SESSIONS[1]] <= now_ms


async def test_who_holds_which_sessions_is_told_once_per_change_and_now_and_then() -> None:
    rig = Rig()
    for _ in range(3):
        rig.beat(*SESSIONS)
        await rig.collector.flush()
    assert rig.notes.held == [HeldSessions(monitor_id="mac-1", part=0, session_ids=tuple(SESSIONS))]
    rig.beat(*SESSIONS[:2])
    rig.clock.move(seconds=TOLD_AGAIN_AFTER_MS / 1000 + 1)
    rig.beat(*SESSIONS[:2])
    await rig.collector.flush()
    rig.beat(*SESSIONS[:2], monitor_id="mac-2")
    await rig.collector.flush()
    assert [len(held.session_ids) for held in rig.notes.held] == [5, 2, 2]
    rig.clock.move(seconds=TOLD_AGAIN_AFTER_MS / 1000 + 1)
    rig.beat(*SESSIONS[:2])
    await rig.collector.flush()
    assert [held.monitor_id for held in rig.notes.held] == ["mac-1", "mac-1", "mac-2", "mac-1"]


async def test_what_the_store_cannot_take_is_kept_and_the_newer_word_wins() -> None:
    rig = Rig()
    rig.notes.is_away = True
    rig.beat(*SESSIONS[:2], age_s=80)
    await rig.collector.flush()
    rig.beat(SESSIONS[0], age_s=10)
    await rig.collector.flush()
    assert rig.notes.seen == {}
    rig.notes.is_away = False
    await rig.collector.flush()
    now_ms = epoch_ms(rig.clock.now())
    assert rig.notes.seen[SESSIONS[0]] > now_ms - 11_000
    assert rig.notes.seen[SESSIONS[1]] < now_ms - 79_000
    assert {each.session_ids for each in rig.notes.held} == {(SESSIONS[0],)}


async def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    rig = Rig(waiting_messages=3)
    for session in SESSIONS:
        rig.beat(session)
    await rig.collector.flush()
    assert sorted(rig.notes.seen) == SESSIONS[2:]
    assert rig.dropped("too_many_messages") == 2


async def test_a_store_that_stays_away_costs_bounded_memory() -> None:
    rig = Rig(unnoted_sessions=3)
    rig.notes.is_away = True
    for session in SESSIONS:
        rig.beat(session)
        await rig.collector.flush()
    rig.notes.is_away = False
    await rig.collector.flush()
    assert sorted(rig.notes.seen) == SESSIONS[2:]
    assert rig.dropped("not_noted") == 2


async def test_what_is_dropped_is_counted_by_its_reason() -> None:
    rig = Rig()
    rig.collector.hear("hb.mac-1", b"x" * (MESSAGE_MAX_BYTES + 1))
    rig.collector.hear("hb.mac-1", b"nonsense")
    rig.collector.hear("hb.mac-1", b'{"v":9,"s":[]}')
    forged = next(render_beats([Pulse(session_id=SESSIONS[0], proof="A" * 12, age_s=0)]))
    rig.collector.hear("hb.mac-1", forged)
    await rig.collector.flush()
    reasons = ("oversized", "malformed", "unknown_version", "forged")
    assert [rig.dropped(reason) for reason in reasons] == [1, 1, 1, 1]
    assert rig.notes.seen == {}


async def test_a_large_fleet_is_noted_whole() -> None:
    rig = Rig()
    fleet = [f"sess_01kaj{number:021d}" for number in range(12_000)]
    rig.beat(*fleet)
    await rig.collector.flush()
    assert len(rig.notes.seen) == 12_000
    assert [(held.part, len(held.session_ids)) for held in rig.notes.held] == [(part, 1_000) for part in range(12)]
