"""The report of a run: JSON with every number of every round, and a table of medians for people."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from cli.benchmark.goals import GOALS, Goal, Rounds, Row, judge
from cli.benchmark.plan import POLL_STORED


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything a run found. `beside` names the processes that ran meanwhile."""

    command: str
    started_at: datetime
    facts: dict[str, Any]
    beside: dict[str, int]
    settings: dict[str, Any]
    rounds: Rounds

    @property
    def rows(self) -> list[Row]:
        return [judge(goal, self.rounds) for goal in GOALS]

    @property
    def failures(self) -> dict[str, dict[str, int]]:
        """The failed requests by measurement and kind."""
        found: dict[str, dict[str, int]] = {}
        for results in self.rounds:
            for name, result in results.items():
                for fault, times in (result.get("failures") or {}).items():
                    kinds = found.setdefault(name, {})
                    kinds[fault] = kinds.get(fault, 0) + times
        return found


def as_json(run: Run) -> dict[str, Any]:
    return {
        "command": run.command,
        "started_at": run.started_at.isoformat(),
        "facts": run.facts,
        "beside": run.beside,
        "settings": run.settings,
        "rows": [asdict(row) for row in run.rows],
        "failures": run.failures,
        "rounds": list(run.rounds),
    }


def write(run: Run, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(run), indent=1) + "\n")


def table(run: Run) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("metric", "product", "floor", "ratio", "goal", "met?"):
        shown.add_column(name, justify="left" if name in ("metric", "goal", "met?") else "right")
    for row in run.rows:
        # A run of chosen measurements shows what it has; a full one also shows what is missing.
        if row.product is not None or not run.settings["only"]:
            shown.add_row(*cells(row))
    return shown


def cells(row: Row) -> tuple[str, str, str, str, str, str]:
    """One line of the table: metric, product, floor, ratio, goal, met?"""
    floor = f"{number(row.floor)}  ({row.goal.floor.name})" if row.goal.floor else ""
    return row.goal.metric, number(row.product), floor, number(row.ratio), wanted(row.goal), verdict(row)


def wanted(goal: Goal) -> str:
    times = " ×" if goal.floor else ""
    if goal.at_least is not None:
        return f"≥ {goal.at_least:g}{times}"
    return f"≤ {goal.at_most:g}{times}" if goal.at_most is not None else ""


def verdict(row: Row) -> str:
    if row.is_met is None:
        return "not measured" if wanted(row.goal) else ""
    return "yes" if row.is_met else f"no, by {(row.short_by or 0) * 100:.0f} %"


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def footer(run: Run) -> list[str]:
    """What one must know to read the table: where it was measured, and beside what."""
    facts, sync = run.facts, "fsync p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms".format_map(run.facts["fsync"])
    names = ", ".join(f"{count} {role}" for role, count in sorted(run.beside.items())) or "processes unknown"
    router = "with the router beside it" if run.beside.get("router") else "no router seen beside it"
    return [
        f"{facts['cores']} cores, Python {facts['python']}, {sync}, load average {facts['load_average'][0]:.1f} before",
        f"{names}: {router}",
        f"medians of {len(run.rounds)} rounds of {run.settings['duration_s']:g} s each; ratios are of the same round",
        *_stored(run),
    ]


def _stored(run: Run) -> list[str]:
    if not any(name.startswith(POLL_STORED) for results in run.rounds for name in results):
        return []
    few, many = run.settings["few_stored"], run.settings["many_stored"]
    return [f"few stored: {few:,} messages in the polled inbox; many stored: {many:,}"]


def processor_lines(rounds: Rounds, names: Sequence[str]) -> list[str]:
    """Processor microseconds per message by process, of the last round."""
    lines = []
    for name in names:
        used = (rounds[-1].get(name, {}) if rounds else {}).get("cpu_us_each") or {}
        if used:
            shares = ", ".join(f"{role} {us:.0f}" for role, us in sorted(used.items(), key=lambda item: -item[1]))
            lines.append(f"processor µs per message, {name}: {shares}")
    return lines
