"""`postroom audit`: does what the ledger tells hold together?"""

from typing import Annotated

import typer

from cli.failures import Failure, Unreachable
from cli.output import AsJson
from cli.places import read_run


def audit(
    nats_url: Annotated[
        str | None,
        typer.Option(envvar="POSTROOM_NATS_URL", help="The broker as user core. Default: the running `postroom up`."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read the whole ledger and check that every message has one lawful history.

    Example: postroom audit --json
    """
    run = read_run()
    if nats_url is None and run is None:
        raise Unreachable("no broker is known; start one with `postroom up`, or name one with --nats-url")
    raise Failure("not there yet")
