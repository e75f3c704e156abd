"""`postroom audit`: does what the ledger tells hold together?"""

from contextlib import aclosing
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.failures import Failure, Misused, Unreachable
from cli.output import AsJson, print_json
from cli.places import read_run

if TYPE_CHECKING:
    from contracts.events import History, Stored
    from infra.ledger_tail import StreamTail
    from router.audit import AuditReport

SHOWN_FINDINGS: Final = 50
SILENCES: Final = 3


def audit(
    nats_url: Annotated[
        str | None,
        typer.Option(
            envvar="POSTROOM_NATS_URL",
            show_envvar=True,
            help="The broker as user core. Default: the running `postroom up`.",
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option(envvar="POSTROOM_PREFIX", help="The prefix of the installation's streams, when it has one.")
    ] = "",
    grace_s: Annotated[float, typer.Option(min=0, help="How late a deadline may be applied.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Read the whole ledger and check that every message has one lawful history. Changes nothing.

    Exit code 0 when it is clean, 1 when something was found.

    Example: postroom audit --json
    """
    import anyio

    from contracts.errors import Unavailable
    from infra.broker_url import BadBrokerUrl
    from infra.clock import SystemClock
    from infra.logs import configure_logs
    from router.audit import audit as check

    configure_logs("error")
    try:
        histories, unreadable = anyio.run(_read_ledger, _broker(nats_url), prefix)
    except BadBrokerUrl as error:
        raise Misused(f"--nats-url: {error}") from None
    except Unavailable as error:
        raise Unreachable(f"{error.code}: {error.message}") from None
    report = check(histories, SystemClock().now(), grace=timedelta(seconds=grace_s))
    print_json(asdict(report) | {"unreadable": unreadable}) if as_json else _print(report, unreadable)
    if unreadable or not report.is_clean:
        raise Failure(f"{len(report.findings)} findings, {unreadable} records that cannot be read")


def _broker(nats_url: str | None) -> str:
    if nats_url is not None:
        return nats_url
    run = read_run()
    if run is None:
        raise Unreachable("no broker is known; start one with `postroom up`, or name one with --nats-url")
    return run.nats_url


async def _read_ledger(url: str, prefix: str) -> "tuple[list[History], int]":
    """Every message's events up to the present end of the ledger, and how many records could not be read."""
    from contracts.events import History
    from contracts.subjects import Names
    from infra.jetstream_api import call
    from infra.ledger_tail import StreamTail
    from infra.nats_connection import Broker

    names = Names(prefix=prefix)
    async with Broker.open(url, name="postroom-audit") as broker:
        state = (await call(broker, f"STREAM.INFO.{names.ledger_stream}"))["state"]
        found, read = await _events(StreamTail(broker, names), int(state["last_seq"]))
    histories = [History(ulid=ulid, events=tuple(events)) for ulid, events in found.items()]
    return histories, int(state["messages"]) - read


async def _events(tail: "StreamTail", goal: int) -> "tuple[dict[str, list[Stored]], int]":
    """The events up to the sequence `goal` by message, and how many they are."""
    found: dict[str, list[Stored]] = {}
    read = reached = silences = 0
    async with aclosing(tail.follow(0)) as batches:
        # A last record that cannot be read never comes; then there is only silence.
        while reached < goal and silences < SILENCES:
            batch = await anext(batches)
            silences = 0 if batch else silences + 1
            for moved in batch:
                reached = moved.stored.seq
                if reached <= goal:
                    found.setdefault(moved.ulid, []).append(moved.stored)
                    read += 1
    return found, read


def _print(report: "AuditReport", unreadable: int) -> None:
    print(f"{report.messages} messages, {report.events} events, {report.accepted} accepted")
    for title, states in (("open", report.open), ("ended", report.ended)):
        print(f"{title:<6}{sum(states.values())}  {', '.join(f'{name} {count}' for name, count in states.items())}")
    for finding in report.findings[:SHOWN_FINDINGS]:
        print(f"✗ {finding.code}  {f'msg_{finding.ulid}' if finding.ulid else '-'}  {finding.text}")
    if len(report.findings) > SHOWN_FINDINGS:
        print(f"… and {len(report.findings) - SHOWN_FINDINGS} more; --json shows all")
    if unreadable:
        print(f"✗ unreadable  {unreadable} records")
    if report.is_clean and not unreadable:
        print("✓ clean")
