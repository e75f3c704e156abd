"""How commands print: JSON for programs, short lines and tables for people."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

WIDTH_WITHOUT_TERMINAL: Final = 160
"""A pipe has no width; tables that wrap at 80 are hard to grep."""


def console() -> "Console":
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(highlight=False, width=width, emoji=False)


def print_json(value: Any) -> None:
    """Indented for eyes, on one line for pipes."""
    print(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None), flush=True)


def print_line(value: Any) -> None:
    """One JSON value per line, at once."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    console().print(table)


def complain(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def one_line(text: str | None, limit: int = 80) -> str:
    """A sender's text, safe to put on a terminal: one line, no control characters, not too long."""
    plain = "".join(" " if not character.isprintable() else character for character in text or "")
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
