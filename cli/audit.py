"""`postroom audit`: does what the ledger tells hold together?"""

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.failures import Failure, Misused, Unreachable
from cli.output import AsJson, print_json
from cli.places import read_run

if TYPE_CHECKING:
    from contracts.events import History
    from router.audit import AuditReport

SHOWN_FINDINGS: Final = 50


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
    from infra.clock import SystemClock
    from infra.logs import configure_logs
    from router.audit import audit as check

    configure_logs("error")
    try:
        histories, unreadable = anyio.run(_read_ledger, _broker(nats_url), prefix)
    except Unavailable as error:
        raise Unreachable(f"{error.code}: {error.message}") from None
    report = check(histories, SystemClock().now(), grace=timedelta(seconds=grace_s))
    print_json(asdict(report) | {"unreadable": unreadable}) if as_json else _print(report, unreadable)
    if unreadable or not report.is_clean:
        raise Failure(f"{len(report.findings)} findings, {unreadable} records that cannot be read")


def _broker(nats_url: str | None) -> str:
    if nats_url is not None:
        if "://" not in nats_url:
            raise Misused("--nats-url is nats://user:password@host:port")
        return nats_url
    run = read_run()
    if run is None:
        raise Unreachable("no broker is known; start one with `postroom up`, or name one with --nats-url")
    return run.nats_url


async def _read_ledger(url: str, prefix: str) -> "tuple[list[History], int]":
    """Every message's events up to the present end of the ledger, and how many records could not be read."""
    from contracts.subjects import Names
    from infra.nats_connection import Broker

    names = Names(prefix=prefix)
    async with Broker.open(url, name="postroom-audit") as broker:
        return await _histories(broker, names)


async def _histories(broker: "Broker", names: "Names") -> "tuple[list[History], int]":
    from contracts.events import History, Stored
    from infra import jetstream_api
    from infra.ledger_tail import StreamTail

    state = (await jetstream_api.call(broker, f"STREAM.INFO.{names.ledger_stream}"))["state"]
    goal, records = int(state["last_seq"]), int(state["messages"])
    found: dict[str, list[Stored]] = {}
    read, reached = 0, 0
    tail = StreamTail(broker, names).follow(0)
    while reached < goal:
        batch = await anext(tail)
        ...
    return [History(ulid=ulid, events=tuple(events)) for ulid, events in found.items()], records - read
