"""`postroom bench`: what the product reaches, as ratios to the floors beneath it, all measured in one run."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import anyio
import typer

from cli.failures import Failure, Misused
from cli.output import complain, console

if TYPE_CHECKING:
    from cli.benchmark.children import Product
    from cli.benchmark.report import Run

DEFAULT_DURATION_S: Final = 2.0
QUICK_DURATION_S: Final = 0.4
ROUNDS: Final = 3
DEFAULT_STORED: Final = 100_000
QUICK_STORED: Final = 5_000
DEFAULT_REDRIVEN: Final = 10_000
QUICK_REDRIVEN: Final = 200

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


Rounds = Annotated[int, typer.Option(min=1, max=20, help="How often each side is measured; medians count.")]
Duration = Annotated[float | None, typer.Option(min=0.1, max=60, help="How long each measurement of a round lasts.")]
OfferedRate = Annotated[int, typer.Option(min=1, max=20_000, help="The rate at which answers are timed.")]
LagRate = Annotated[int, typer.Option(min=1, max=20_000, help="The rate at which the lists' lag is timed.")]
Stored = Annotated[
    int | None,
    typer.Option(min=1_000, max=1_000_000, help="How many messages lie in the longer of the polled inboxes."),
]
Redriven = Annotated[
    int | None, typer.Option(min=50, max=100_000, help="How many dead letters are redriven beside live sends.")
]
Only = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Only measurements whose names begin so; may be repeated.")
]
Out = Annotated[Path | None, typer.Option(help="Where the JSON goes. Default: bench-results/<instant>.json.")]
ReadyFile = Annotated[
    Path | None, typer.Option(help="Measure the `postroom up` that wrote this file, instead of one of our own.")
]
Url = Annotated[str | None, typer.Option(help="Measure this gateway; needs --api-key and --nats-url.")]
ApiKey = Annotated[str | None, typer.Option(envvar="POSTROOM_API_KEY", help="An admin key, for --url.")]
NatsUrl = Annotated[str | None, typer.Option(help="The broker behind --url, with user and password.")]
Prefix = Annotated[str, typer.Option(help="The prefix of the installation's streams, when it has one.")]


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="A minute: shows that all works, not how fast.")] = False,
    rounds: Rounds = ROUNDS,
    duration_s: Duration = None,
    offered_per_s: OfferedRate = 1000,
    lag_per_s: LagRate = 1000,
    stored: Stored = None,
    redriven: Redriven = None,
    only: Only = None,
    out: Out = None,
    ready_file: ReadyFile = None,
    url: Url = None,
    api_key: ApiKey = None,
    nats_url: NatsUrl = None,
    prefix: Prefix = "",
) -> None:
    """Measure the product and the floors beneath it in turn, and say which goals are met.

    Exit code 0 when everything could be measured, whether or not a goal is met; 1 when a request failed.
    """
    from cli.benchmark.run import Options, measure_all

    options = Options(
        duration_s=duration_s or (QUICK_DURATION_S if quick else DEFAULT_DURATION_S),
        rounds=rounds,
        offered_per_s=offered_per_s,
        lag_per_s=lag_per_s,
        stored=stored or (QUICK_STORED if quick else DEFAULT_STORED),
        redriven=redriven or (QUICK_REDRIVEN if quick else DEFAULT_REDRIVEN),
        prefix=prefix,
        only=tuple(only or ()),
        ready_file=ready_file,
        product=_named_product(url, api_key, nats_url),
    )
    started_at = datetime.now(UTC)
    run = anyio.run(measure_all, options, started_at, complain)
    show(run, out or Path("bench-results", f"{started_at:%Y%m%dT%H%M%SZ}.json"))


def main(arguments: Sequence[str]) -> None:
    """Run the command with these arguments; `Failure` is raised, everything else of the command line exits here."""
    typer.main.get_command(app).main(list(arguments), prog_name="postroom bench")


def _named_product(url: str | None, api_key: str | None, nats_url: str | None) -> "Product | None":
    from cli.benchmark.children import Product

    if url is None:
        return None
    if api_key is None or nats_url is None:
        raise Misused("--url needs --api-key and --nats-url")
    return Product(url=url, nats_url=nats_url, admin_key=api_key)


def show(run: "Run", path: Path) -> None:
    """Write the JSON, print the table; raises `Failure` when a request failed, and never for a missed goal."""
    from cli.benchmark.report import footer, processor_lines, table, write

    write(run, path)
    screen = console()
    screen.print(table(run))
    for line in [*footer(run), *processor_lines(run.rounds, ("accept_auto_64", "accept_live_64")), f"written: {path}"]:
        screen.print(line)
    if run.failures:
        raise Failure(f"requests failed, so these are no measurements: {run.failures}")
