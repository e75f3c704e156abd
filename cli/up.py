"""`postroom up`: the whole product on this machine, shown at work."""

from pathlib import Path
from typing import Annotated, Final

import typer

from cli.output import AsJson

GATEWAY_PORT: Final = 8420
NATS_PORT: Final = 4420
REDIS_PORT: Final = 6420


def up(
    once: Annotated[bool, typer.Option("--once", help="End after the demo; exit 0 when every step held.")] = False,
    no_demo: Annotated[
        bool, typer.Option("--no-demo", help="Servers, gateway and router only: no demo, no agents, no monitor.")
    ] = False,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="Written (0600) once everything answers: url, nats_url, redis_url, admin_key, pid as JSON."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Where everything is kept. Default: POSTROOM_DATA_DIR, else .postroom/data"),
    ] = None,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Keep nothing: a folder removed at the end.")] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="The gateway's port; 0 picks free ones for all three.")
    ] = GATEWAY_PORT,
    nats_port: Annotated[
        int | None, typer.Option("--nats-port", min=0, max=65_535, help="The broker's.", show_default=str(NATS_PORT))
    ] = None,
    redis_port: Annotated[
        int | None, typer.Option("--redis-port", min=0, max=65_535, help="Valkey's.", show_default=str(REDIS_PORT))
    ] = None,
    claim_window_s: Annotated[
        int, typer.Option("--claim-window-s", min=1, max=600, help="The claim window of the demo's unclaimed offers.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Start broker, Valkey, gateway, router and a monitor, show them at work, and stay up until Ctrl-C.

    While it runs, the other commands find it by themselves and speak as owner max.

    Example: postroom up, and in another terminal: postroom send cue-mac-app "hello" --wait outcome
    """
    from cli.failures import Misused
    from cli.running import Options, run

    if ephemeral and data is not None:
        raise Misused("--ephemeral keeps nothing, and --data says where to keep it: choose one")
    if once and no_demo:
        raise Misused("--once runs the demo and --no-demo leaves it out: choose one")
    free = port == 0
    options = Options(
        data_dir=None if ephemeral else _data_dir(data),
        gateway_port=port,
        nats_port=nats_port if nats_port is not None else (0 if free else NATS_PORT),
        redis_port=redis_port if redis_port is not None else (0 if free else REDIS_PORT),
        once=once,
        demo=not no_demo,
        claim_window_s=claim_window_s,
        ready_file=ready_file,
        as_json=as_json,
    )
    raise typer.Exit(run(options))


def _data_dir(named: Path | None) -> Path:
    from cli.places import default_data_dir

    return (named or default_data_dir()).absolute()
