"""`postroom monitor`: the monitor of this host, in the foreground."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.places import root


def monitor(
    config: Annotated[Path, typer.Option("--config", exists=True, dir_okay=False, help="The monitor's TOML file.")],
    ready_file: Annotated[Path | None, typer.Option(help="Written once everything is subscribed.")] = None,
) -> None:
    """Run the monitor that serves this host's agents. The same as `python -m monitor`.

    Example: postroom monitor --config ~/.config/postroom/monitor.toml
    """
    argv = [sys.executable, "-P", "-m", "monitor", "--config", str(config)]
    if ready_file is not None:
        argv += ["--ready-file", str(ready_file)]
    path = os.pathsep.join(filter(None, (str(root()), os.environ.get("PYTHONPATH"))))
    os.execve(sys.executable, argv, os.environ | {"PYTHONPATH": path})  # noqa: S606 - no shell is the point
