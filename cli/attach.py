"""`postroom attach`: a live session in a terminal, or behind a program that speaks lines."""

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.failures import Failure, Misused, Unreachable
from cli.output import print_line
from cli.places import read_run

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from monitor.session import OfferSeen, SessionFolder

TOUCH_EVERY_S: Final = 5.0
ATTACH_TIMEOUT_S: Final = 30.0
STDIN: Final = 0
CHUNK_BYTES: Final = 65_536


def attach(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The slug of an agent the local monitor serves.")],
    label: Annotated[str, typer.Option(help="The session's name; one session per label.")] = "main",
    state_dir: Annotated[
        Path | None, typer.Option(help="The monitor's state directory. Default: that of the running `postroom up`.")
    ] = None,
    auto_claim: Annotated[bool, typer.Option("--auto-claim", help="Claim every offer at once.")] = False,
) -> None:
    """Be a live session of an agent until Ctrl-C, which detaches it.

    What happens is printed as JSON lines; "event" is attached, offer, delivery, refusal, posted or error.

    Standard input takes lines of two kinds. `claim EXEC` claims an offer; a delivery or a refusal follows.
    A JSON object with "execution_id" and "success", and "result", "error" and "metadata" if you like,
    reports the outcome of a delivery.

    Example: postroom attach cue-mac-app --auto-claim
    """
    import anyio

    from monitor.session import NotAttached, SessionFolder

    try:
        folder = SessionFolder(state_dir or _local_state_dir(), agent.partition("@")[0], label)
    except ValueError as error:
        raise Misused(str(error)) from None
    try:
        status = anyio.run(_until_signal, folder, auto_claim)
    except* NotAttached as group:
        raise Failure(f"{group.exceptions[0]}; does the monitor serve {agent}?") from None
    except* FileNotFoundError:
        raise Failure("the session's folder was removed by somebody else") from None
    raise typer.Exit(status)


def _local_state_dir() -> Path:
    run = read_run()
    if run is None:
        raise Unreachable("no `postroom up` runs here; name the monitor's state directory with --state-dir")
    if run.monitor_state_dir is None:
        raise Failure("the running `postroom up` has no monitor; start it without --no-demo, or name --state-dir")
    return Path(run.monitor_state_dir)


async def _until_signal(folder: "SessionFolder", auto_claim: bool) -> int:
    """Attend until told to stop; return the exit status that says by what."""
    import anyio

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_attended, folder, auto_claim)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            number = await anext(signals)
        tasks.cancel_scope.cancel()
    return 128 + number


async def _attended(folder: "SessionFolder", auto_claim: bool) -> None:
    import anyio

    folder.open()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(folder.keep_touching, TOUCH_EVERY_S)
            sidecar = await folder.wait_attached(ATTACH_TIMEOUT_S)
            known = ("agent_id", "address", "label", "session_id", "attached_at")
            print_line({"event": "attached"} | {name: sidecar[name] for name in known})
            conversation = _Conversation(folder, tasks)
            tasks.start_soon(conversation.read_commands)
            async for offer in folder.offers():
                conversation.offered(offer)
                if auto_claim:
                    conversation.claim(offer.execution_id)
    finally:
        await folder.close()


class _Conversation:
    """What is said on the two streams."""

    def __init__(self, folder: "SessionFolder", tasks: "TaskGroup") -> None:
        self._folder = folder
        self._tasks = tasks

    def offered(self, offer: "OfferSeen") -> None:
        facts = {"message_id": offer.message_id, "claim_before": offer.claim_before}
        print_line({"event": "offer", "execution_id": offer.execution_id} | facts)

    async def read_commands(self) -> None:
        async for line in _lines(STDIN):
            verb, _, rest = line.strip().partition(" ")
            if verb == "claim":
                self.claim(rest.strip())
            elif verb.startswith("{"):
                self._complaining(lambda line=line: self._report(json.loads(line)))  # type: ignore[misc]
            elif verb:
                _error('expected "claim EXEC" or a JSON object with execution_id and success')

    def claim(self, execution_id: str) -> None:
        offer = next((each for each in self._folder.offers_now() if each.execution_id == execution_id), None)
        if offer is None:
            _error(f"{execution_id} is not on offer")
            return
        self._complaining(lambda: self._folder.claim(offer))
        self._tasks.start_soon(self._tell_answer, execution_id)

    async def _tell_answer(self, execution_id: str) -> None:
        from monitor.session import Delivery

        try:
            answer = await self._folder.wait_answer(execution_id)
        except TimeoutError:
            _error(f"no answer to the claim of {execution_id}")
            return
        if isinstance(answer, Delivery):
            print_line({"event": "delivery", "execution_id": execution_id, "message": answer.message})
            self._folder.in_context(execution_id)
        else:
            print_line(
                {"event": "refusal", "execution_id": execution_id, "code": answer.code, "message": answer.message}
            )

    def _report(self, document: dict[str, Any]) -> None:
        execution_id = str(document["execution_id"])
        named = {name: document[name] for name in ("result", "error", "metadata") if name in document}
        self._folder.outcome(execution_id, success=bool(document["success"]), **named)
        self._tasks.start_soon(self._tell_posted, execution_id)

    async def _tell_posted(self, execution_id: str) -> None:
        try:
            refusal = await self._folder.wait_posted(execution_id)
        except TimeoutError:
            _error(f"the outcome of {execution_id} is not posted yet; the monitor goes on trying")
            return
        facts = {"accepted": refusal is None} | ({"code": refusal.code} if refusal else {})
        print_line({"event": "posted", "execution_id": execution_id} | facts)

    def _complaining(self, act: Callable[[], None]) -> None:
        from monitor.session import NotAttached

        try:
            act()
        except KeyError as missing:
            _error(f"the outcome lacks {missing}")
        except (ValueError, TypeError, NotAttached) as error:
            _error(str(error))


def _error(message: str) -> None:
    print_line({"event": "error", "message": message})


async def _lines(descriptor: int) -> AsyncIterator[str]:
    """The lines that come in on `descriptor`; ends with it. Cancelling never waits for a line."""
    import anyio

    rest = b""
    while True:
        try:
            await anyio.wait_readable(descriptor)
        except PermissionError:
            # A regular file or /dev/null cannot be waited for, and never blocks.
            await anyio.lowlevel.checkpoint()
        chunk = os.read(descriptor, CHUNK_BYTES)
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
        if not chunk:
            if rest:
                yield rest.decode(errors="replace")
            return
