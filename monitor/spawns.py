"""Background work of one agent: lease, run, report, never more at once than allowed.

push · poll · a slot got free ▶ lease ▶ run (lease extended at a third of its length)
    ├─ the program has read its message ▶ in-context, said beside the run
    ├─ ended ▶ outcome or release, repeated over outages until the gateway answers
    ├─ lease lost (409, or no answer until its end) ▶ child killed, nothing reported
    └─ we stop ▶ child killed, lease released
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from contracts.errors import Conflict, Invalid, Malformed, PostroomError, Rejected, Unavailable
from contracts.records import JsonObject
from monitor.background import Release, environment, input_line, judge, without_result
from monitor.backoff import DEFAULT, jittered, persist
from monitor.bell import Bell
from monitor.configuration import BackgroundSettings
from monitor.contexts import LAST_WORD_S, say_in_context
from monitor.ports import Gateway, HostedAgent, Journal, Leased, Program, Programs, Report, Shelf, Started

PUSHES_MAX: Final = 1_000
"""Pushes remembered while every slot is taken; the poll finds the others."""
REPORT_PATIENCE_S: Final = 600.0
"""How long a finished run is reported to a silent gateway. The lease's number keeps a late report harmless."""
RELEASE_TIMEOUT_S: Final = 1.5
EXTEND_SHARE: Final = 3


@dataclass(slots=True)
class Tenure:
    """What we know of our lease: it is certainly over at `ends_at`, on the event loop's clock.

    `said` is set once the gateway knows that the program has read its message; None while it has not.
    """

    leased: Leased
    ends_at: float
    lost: bool = False
    said: anyio.Event | None = None
    ending: Report | Release | None = None


class Background:
    def __init__(
        self,
        *,
        agent: HostedAgent,
        settings: BackgroundSettings,
        worker_id: str,
        poll_every_s: float,
        base_env: Mapping[str, str],
        gateway: Gateway,
        programs: Programs,
        journal: Journal,
    ) -> None:
        self.agent = agent
        self._settings = settings
        self._worker_id = worker_id
        self._poll_every_s = poll_every_s
        self._base_env = base_env
        self._gateway = gateway
        self._programs = programs
        self._journal = journal
        self._bell = Bell()
        self._pushed: dict[str, None] = {}
        self._running: set[str] = set()
        self._poll_is_due = True
        self._poll_at = 0.0
        self._failures = 0
        self._log = structlog.get_logger().bind(agent_id=agent.id)

    def hear(self, execution_id: str) -> None:
        """A push: this execution waits for a host."""
        if execution_id in self._running or len(self._pushed) >= PUSHES_MAX:
            return
        self._pushed[execution_id] = None
        self._bell.ring()

    def poll_soon(self) -> None:
        """Pushes may have been missed."""
        self._poll_is_due = True
        self._bell.ring()

    async def run(self) -> None:
        """Take and run work until cancelled; then nothing of it is left, and every lease is released."""
        async with anyio.create_task_group() as tasks:
            while True:
                if anyio.current_time() >= self._poll_at:
                    self._poll_is_due = True
                    self._poll_at = anyio.current_time() + jittered(self._poll_every_s)
                await self._fill_slots(tasks)
                await self._bell.wait(max(0.0, self._poll_at - anyio.current_time()))

    # --- taking ----------------------------------------------------------------------------------------------------

    async def _fill_slots(self, tasks: TaskGroup) -> None:
        try:
            while len(self._running) < self._settings.concurrency:
                ends_at = anyio.current_time() + self._settings.lease_s
                leased = await self._next()
                self._failures = 0
                if leased is None:
                    return
                self._running.add(leased.execution_id)
                tasks.start_soon(self._serve, leased, ends_at)
        except (Unavailable, Rejected) as error:
            self._failures += 1
            delay_s = min(self._poll_every_s, DEFAULT.delay_s(self._failures, 0.5))
            self._poll_at = anyio.current_time() + delay_s
            self._log.warning("lease_not_taken", code=error.code, retry_in_s=round(delay_s, 2))

    async def _next(self) -> Leased | None:
        """Pushed executions first, then whatever waits longest."""
        while self._pushed:
            execution_id = next(iter(self._pushed))
            try:
                leased = await self._gateway.lease(execution_id, self._worker_id, self._settings.lease_s)
            except Rejected as refusal:
                self._pushed.pop(execution_id, None)
                self._log.info("lease_refused", execution_id=execution_id, code=refusal.code)
                continue
            self._pushed.pop(execution_id, None)
            return leased
        if not self._poll_is_due:
            return None
        leased_next = await self._gateway.lease_next(self.agent.id, self._worker_id, self._settings.lease_s)
        self._poll_is_due = leased_next is not None
        return leased_next

    async def _serve(self, leased: Leased, ends_at: float) -> None:
        try:
            await self._attempt(Tenure(leased=leased, ends_at=ends_at))
        finally:
            if len(self._running) >= self._settings.concurrency:
                self._poll_is_due = True
            self._running.discard(leased.execution_id)
            self._bell.ring()

    # --- one attempt -----------------------------------------------------------------------------------------------

    async def _attempt(self, tenure: Tenure) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_lease, tenure, tasks)
                tenure.ending = await self._run(tenure.leased, lambda: self._taken(tenure, tasks))
                await self._last_word(tenure)
                with anyio.move_on_after(REPORT_PATIENCE_S):
                    await self._tell(tenure.leased, tenure.ending)
                tasks.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            await self._leave(tenure)
            raise
        finally:
            self._journal.drop(Shelf.RUNS, tenure.leased.execution_id)

    def _taken(self, tenure: Tenure, tasks: TaskGroup) -> None:
        """The program has read its message."""
        tenure.said = anyio.Event()
        tasks.start_soon(self._say, tenure.leased, tenure.said)

    async def _say(self, leased: Leased, said: anyio.Event) -> None:
        await say_in_context(self._gateway, leased.execution_id, leased.number)
        said.set()

    async def _last_word(self, tenure: Tenure) -> None:
        """After the outcome it would be refused, so a short program's outcome waits for it, a little."""
        if tenure.said is not None:
            with anyio.move_on_after(LAST_WORD_S):
                await tenure.said.wait()

    async def _run(self, leased: Leased, taken: Callable[[], None]) -> Report | Release:
        settings = self._settings
        program = Program(
            argv=settings.argv,
            env=environment(self._base_env, settings.env_allow, leased, self.agent.id),
            cwd=settings.cwd,
            limits={str(name): value for name, value in settings.limits.items()},
            wall_timeout_s=settings.wall_timeout_s,
            output_cap_bytes=settings.output_cap_bytes,
        )
        self._log.info("run_started", execution_id=leased.execution_id, attempt=leased.attempt, lease=leased.number)
        run = await self._programs.run(
            program, input_line(leased), leased.execution_id, lambda started: self._note(leased, started), taken
        )
        ending = judge(run, leased)
        self._log.info(
            "run_ended",
            execution_id=leased.execution_id,
            exit_code=run.exit_code,
            duration_ms=run.duration_ms,
            truncated=run.truncated,
            reason=ending.reason if isinstance(ending, Release) else "ok",
        )
        return ending

    def _note(self, leased: Leased, started: Started) -> None:
        entry: JsonObject = {"pid": started.pid, "started_at": started.started_at, "lease": leased.number}
        try:
            self._journal.put(Shelf.RUNS, leased.execution_id, entry)
        except OSError as error:
            # The run goes on: the note only helps whoever comes after our sudden death.
            self._log.warning("run_not_noted", execution_id=leased.execution_id, error=repr(error))

    async def _keep_lease(self, tenure: Tenure, tasks: TaskGroup) -> None:
        leased, lease_s = tenure.leased, self._settings.lease_s
        while not tenure.lost:
            await anyio.sleep(lease_s / EXTEND_SHARE)
            asked_at = anyio.current_time()
            with anyio.move_on_at(tenure.ends_at if tenure.ending is None else asked_at + lease_s):
                tenure.lost = await self._extend(leased)
                tenure.ends_at = asked_at + lease_s
            if tenure.ending is None and anyio.current_time() >= tenure.ends_at:
                tenure.lost = True
        self._log.warning("lease_lost", execution_id=leased.execution_id, lease=leased.number)
        tasks.cancel_scope.cancel()

    async def _extend(self, leased: Leased) -> bool:
        """Extend once somebody answers; True when the lease is not ours any more."""
        try:
            await persist(
                lambda: self._gateway.extend(leased.execution_id, leased.number, self._settings.lease_s),
                what="extend_lease",
            )
        except Conflict:
            return True
        except Rejected as refusal:
            self._log.warning("lease_not_extended", execution_id=leased.execution_id, code=refusal.code)
        return False

    # --- reporting -------------------------------------------------------------------------------------------------

    async def _tell(self, leased: Leased, ending: Report | Release) -> None:
        """Post what came of it until the gateway answers; a result it cannot take is left out."""
        try:
            await persist(lambda: self._tell_once(leased, ending), what="report")
        except (Invalid, Malformed) as refusal:
            self._log.warning("outcome_refused", execution_id=leased.execution_id, code=refusal.code)
            if isinstance(ending, Report) and "result_omitted" not in ending.metadata:
                await self._tell(leased, without_result(ending, refusal.code))
        except Rejected as refusal:
            self._log.warning("outcome_refused", execution_id=leased.execution_id, code=refusal.code)

    async def _tell_once(self, leased: Leased, ending: Report | Release) -> None:
        if isinstance(ending, Report):
            await self._gateway.outcome(leased.execution_id, ending)
        else:
            await self._gateway.release(leased.execution_id, leased.number, ending.reason, ending.detail)

    async def _leave(self, tenure: Tenure) -> None:
        """We stop: say what came of it, or that nothing did, once and quickly."""
        leased = tenure.leased
        ending = tenure.ending or Release(reason="monitor_stopped")
        with anyio.move_on_after(RELEASE_TIMEOUT_S, shield=True):
            await _attempted(lambda: self._tell_once(leased, ending), leased.execution_id)


async def end_leftovers(programs: Programs, journal: Journal, gateway: Gateway) -> None:
    """Kill what a monitor that died left running, and give its leases back, before any new one is taken."""
    for execution_id in journal.names(Shelf.RUNS):
        entry = journal.get(Shelf.RUNS, execution_id) or {}
        started = Started(pid=int(entry["pid"]), started_at=float(entry["started_at"]))
        found = await programs.end_leftover(started, execution_id)
        structlog.get_logger().warning("leftover_run_ended", execution_id=execution_id, was_running=found)
        with anyio.move_on_after(RELEASE_TIMEOUT_S):
            lease = int(entry["lease"])
            await _attempted(_released(gateway, execution_id, lease), execution_id)
        journal.drop(Shelf.RUNS, execution_id)


def _released(gateway: Gateway, execution_id: str, lease: int) -> Callable[[], Awaitable[None]]:
    return lambda: gateway.release(execution_id, lease, "monitor_restarted", None)


async def _attempted(call: Callable[[], Awaitable[None]], execution_id: str) -> None:
    """Make a call whose failure changes nothing: the lease ends by itself."""
    try:
        await call()
    except PostroomError as error:
        structlog.get_logger().info("lease_left_to_expire", execution_id=execution_id, code=error.code)
